"""Models: ways to put parts together into p(x, z) and q(z|x)."""

from subo.models.blocks import Block, BottomUp, Correction, PrecisionWeighted, Update
from subo.models.deep_markov import BackwardReader, Combiner, GatedTransition, Smoother
from subo.models.emission import Emission
from subo.models.graph import Child, Joint
from subo.models.hidden_markov import HiddenMarkov
from subo.models.ladder import Ladder
from subo.models.markov import Markov, MarkovDistribution
from subo.models.probabilistic_pca import LinearGaussian, probabilistic_pca
from subo.models.state_space import LinearGaussianStateSpace
from subo.models.vae import VAE

__all__ = [
    "VAE",
    "BackwardReader",
    "Block",
    "BottomUp",
    "Child",
    "Combiner",
    "Correction",
    "Emission",
    "GatedTransition",
    "HiddenMarkov",
    "Joint",
    "Ladder",
    "LinearGaussian",
    "LinearGaussianStateSpace",
    "Markov",
    "MarkovDistribution",
    "PrecisionWeighted",
    "Smoother",
    "Update",
    "probabilistic_pca",
]
