"""Codebooks of 3GPP NR: the report is a precoding matrix indicator (PMI), the estimate a precoder for each subband."""

from shared.schemes.codebooks.base import CodebookConfig
from shared.schemes.codebooks.etype2 import EnhancedTypeII, EnhancedTypeIIConfig
from shared.schemes.codebooks.type1 import TypeI

__all__ = ["CodebookConfig", "EnhancedTypeII", "EnhancedTypeIIConfig", "TypeI"]
