"""The demonstration: real photographs over real DICOM on one machine."""
