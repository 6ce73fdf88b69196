"""Losses for distilling CLIP models: every paradigm of CLIP-KD as a standalone module that needs torch alone."""

from kdlosses import backends, masking
from kdlosses.base import DistillLoss
from kdlosses.catalog import available_losses, build
from kdlosses.distributed.parameters import share_parameters
from kdlosses.guard import UntrainedParametersWarning
from kdlosses.losses.afd import AFDLoss
from kdlosses.losses.affinity import AffinityLoss
from kdlosses.losses.bank import BankLoss
from kdlosses.losses.clip import CLIPLoss
from kdlosses.losses.clip_kd import CLIPKDLoss
from kdlosses.losses.crd import CRDLoss
from kdlosses.losses.cross_kd import CrossKDLoss
from kdlosses.losses.decoupled_affinity import DecoupledAffinityLoss
from kdlosses.losses.fd import FDLoss
from kdlosses.losses.gd import GDLoss
from kdlosses.losses.gram import GramLoss
from kdlosses.losses.icl import ICLLoss
from kdlosses.losses.mfd import MFDLoss
from kdlosses.losses.relation import RelationLoss
from kdlosses.losses.siglip import SigLIPLoss
from kdlosses.losses.sigmoid_kd import SigmoidKDLoss
from kdlosses.losses.vrd import VRDLoss
from kdlosses.losses.xrd import XRDLoss
from kdlosses.matryoshka import MatryoshkaLoss
from kdlosses.multi_caption import MultiCaptionLoss
from kdlosses.multi_teacher import MultiTeacherLoss
from kdlosses.parameters import ParameterReport, parameter_report
from kdlosses.registry import available_terms, register
from kdlosses.term import Computation, Term
from kdlosses.weights import default_weights

__version__ = "0.2.0.dev0"

__all__ = [
    "AFDLoss",
    "AffinityLoss",
    "BankLoss",
    "CLIPKDLoss",
    "CLIPLoss",
    "CRDLoss",
    "Computation",
    "CrossKDLoss",
    "DecoupledAffinityLoss",
    "DistillLoss",
    "FDLoss",
    "GDLoss",
    "GramLoss",
    "ICLLoss",
    "MFDLoss",
    "MatryoshkaLoss",
    "MultiCaptionLoss",
    "MultiTeacherLoss",
    "ParameterReport",
    "RelationLoss",
    "SigLIPLoss",
    "SigmoidKDLoss",
    "Term",
    "UntrainedParametersWarning",
    "VRDLoss",
    "XRDLoss",
    "__version__",
    "available_losses",
    "available_terms",
    "backends",
    "build",
    "default_weights",
    "masking",
    "parameter_report",
    "register",
    "share_parameters",
]
