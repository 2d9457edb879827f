"""DICOM only: reception, headers, pixels, structured reports, delivery."""
