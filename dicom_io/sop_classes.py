"""SOP classes and transfer syntaxes of the listener, from cameras' conformance statements."""

from __future__ import annotations

from pydicom import uid

VERIFICATION = "1.2.840.10008.1.1"

IMAGE_SOP_CLASSES: tuple[str, ...] = (
    uid.OphthalmicPhotography8BitImageStorage,
    uid.OphthalmicPhotography16BitImageStorage,
    uid.WideFieldOphthalmicPhotographyStereographicProjectionImageStorage,
    uid.WideFieldOphthalmicPhotography3DCoordinatesImageStorage,
    uid.VLPhotographicImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)

WIDE_FIELD_SOP_CLASSES: frozenset[str] = frozenset(IMAGE_SOP_CLASSES[2:4])

UNCOMPRESSED: tuple[str, ...] = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)

IMAGE_TRANSFER_SYNTAXES: tuple[str, ...] = (
    *UNCOMPRESSED,  # first: of several that one context offers, the acceptor takes its own first
    uid.JPEGBaseline8Bit,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.RLELossless,
    uid.JPEGExtended12Bit,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
