"""The stages that come with peav; importing this package registers them, and loads no model."""

from peav.engine.stages.choose import ChooseCaption
from peav.engine.stages.fingerprint import Fingerprint
from peav.engine.stages.gates import Gates
from peav.engine.stages.http_transcriber import HTTPTranscriber
from peav.engine.stages.measure import Measure
from peav.engine.stages.model import ModelCaptioner, ModelWriter
from peav.engine.stages.read import CaptionsFromFile
from peav.engine.stages.score import ScoreCaptions
from peav.engine.stages.sphinx import PocketSphinx
from peav.engine.stages.tagger import PEAVTagger
from peav.engine.stages.template import TemplateWriter
from peav.engine.stages.transcriber import ModelTranscriber
from peav.engine.stages.voice import SileroVoice
from peav.engine.stages.yamnet import YAMNetTagger

__all__ = [
    "CaptionsFromFile",
    "ChooseCaption",
    "Fingerprint",
    "Gates",
    "HTTPTranscriber",
    "Measure",
    "ModelCaptioner",
    "ModelTranscriber",
    "ModelWriter",
    "PEAVTagger",
    "PocketSphinx",
    "ScoreCaptions",
    "SileroVoice",
    "TemplateWriter",
    "YAMNetTagger",
]
