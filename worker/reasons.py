"""The one list of reason codes: why there is no result, or why something did not get in or out.

Each code has a sentence for the person who reads the report (an ophthalmologist), and a remedy for the person
who runs the worker (an imaging IT admin). `worker`, `dicom_io` and `models` use no code that is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from worker.reason import Reason, Scope, image_reason, other_reason
from worker.reasons_delivery import DELIVERIES, DOCUMENTS
from worker.reasons_door import DOOR, OBJECTS

_IMAGES = (
    image_reason(
        "PIXELS_MISSING",
        "The object contains no picture.",
        "Check on the camera whether the image was saved completely and send it again.",
    ),
    image_reason(
        "PIXELS_UNREADABLE",
        "The picture in the object is damaged and cannot be opened.",
        "Send the image again; if it fails again, see in the PACS viewer whether its source is damaged.",
    ),
    image_reason(
        "DECODER_FAILED",
        "The picture made the program that opens it crash, hang or take too much memory.",
        "See reason_detail. Send the image again; if it ends so again, see in the PACS viewer whether its "
        "source is damaged. Where time or memory ran out on a sound image, raise [decoder] timeout_s or "
        "memory_mb, then run `fundus-worker requeue --refused --reason DECODER_FAILED`.",
    ),
    image_reason(
        "UNSUPPORTED_TRANSFER_SYNTAX",
        "The picture is compressed in a way that this software does not read.",
        "Have the sender use 8-bit JPEG, JPEG-LS, JPEG 2000, RLE or an uncompressed transfer syntax; the "
        "row's reason_detail and the log name the one used.",
    ),
    image_reason(
        "IMAGE_TOO_LARGE",
        "The picture is larger than this software accepts.",
        "Check Rows and Columns at the sender; a real photograph of that size has to be exported smaller.",
    ),
    image_reason(
        "NOT_COLOUR",
        "This is not a colour photograph (for example infrared, red-free, autofluorescence or angiography).",
        "Nothing to do: such images are not analysed. To save traffic, leave them out of the routing rule.",
        blocks_negative=False,
    ),
    image_reason(
        "NOT_A_FUNDUS_PHOTOGRAPH",
        "No retina was found in the picture (for example the front of the eye, a document or a black frame).",
        "Nothing to do, unless it is a fundus photograph: then view it, or have it repeated.",
    ),
    image_reason(
        "UNGRADABLE_QUALITY",
        "The picture is too blurred, dark or incomplete to be graded.",
        "Have the photograph repeated; if one camera does it often, have its optics cleaned and checked.",
    ),
    image_reason(
        "CAMERA_NOT_VALIDATED",
        "The picture comes from a camera on which the analysis was not validated.",
        "Train and validate an adapter for this camera, or accept it with [camera] opt_in; see "
        "`fundus-worker cameras explain FILE`.",
    ),
    image_reason(
        "CAMERA_REFUSED",
        "Pictures from this camera are not analysed here.",
        "Change [camera] without_adapter or unknown, or add the camera to opt_in, if they should be.",
    ),
    image_reason(
        "WIDE_FIELD_NOT_VALIDATED",
        "This is a wide-field picture, on which the analysis was not validated.",
        "Change [camera] wide_field, or add the camera to opt_in, if such pictures should be analysed.",
    ),
    image_reason(
        "TEXT_IN_FIELD",
        "Text or a drawing lies over the retina in this picture.",
        "Have the camera or PACS send the picture without it; text beside the retina does no harm. [camera] "
        "text_in_field = classify has such pictures reported all the same.",
    ),
    image_reason(
        "LATERALITY_UNKNOWN",
        "The image does not say whether it shows the right or the left eye.",
        "Have the side entered at the camera (Image Laterality, 0020,0062) and send the image again.",
    ),
    image_reason(
        "LATERALITY_CONFLICT",
        "The image names two different sides.",
        "Correct the side at the camera or PACS (0020,0062, 0020,0060, 0020,9072 and the coded side of "
        "0008,2218 must agree) and send it again.",
    ),
    image_reason(
        "IMAGE_UNFINISHED",
        "The image had not been analysed when this report had to be written.",
        "See `fundus-worker status` for what is waiting; a revised report follows when it is done.",
    ),
)

_RESULTS = (
    other_reason(
        Scope.EYE,
        "NO_GRADABLE_IMAGE",
        "There is no image of this eye that can be graded.",
        "See the reasons of the images; have the photographs repeated.",
    ),
    other_reason(
        Scope.EYE,
        "EYE_POLICY",
        "At least one image of this eye could not be used, and this site reports an eye only when all could.",
        "See the reasons of the images; the rule is [grading] eye_policy = strict.",
    ),
    other_reason(
        Scope.EYE,
        "EYE_WITHHELD",
        "This photograph could be read; the eye's result is withheld because of another photograph.",
        "See the reason of the eye, and those of its other images: it is they that have to be repeated.",
    ),
    Reason(
        "STUDY_EMPTIED",
        "A report was delivered, and then every image of its study was moved to another study.",
        "Tell its readers, and remove the report at the destination: what it says belongs to the study that "
        "has the images now.",
        True,
        Scope.STUDY,
    ),
    Reason(
        "PATIENT_CONFLICT",
        "The images of this study name different patients.",
        "Find out at the sender whose images these are, correct them there and send the study again.",
        True,
        Scope.STUDY,
    ),
)


REASONS: Mapping[str, Reason] = MappingProxyType(
    {each.code: each for group in (OBJECTS, _IMAGES, _RESULTS, DELIVERIES, DOCUMENTS, DOOR) for each in group}
)


def reason(code: str) -> Reason:
    """The reason of a code.

    Raises:
        KeyError: There is no such code: a mistake in the program.
    """
    return REASONS[code]
