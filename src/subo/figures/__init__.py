"""Arrays in, figures out: training, reconstructions, samples and the latent space.

Every function returns a :class:`matplotlib.figure.Figure` of its own: no pyplot state, no changed defaults,
no window. Images are events of shape ``(H, W)``, ``(1, H, W)`` or ``(3, H, W)`` with values in [0, 1]; every
other event is drawn as a vector over its features.
"""

# Names imported `as` themselves aren't public: the tests look at them.
from subo.figures.data_space import decoder_grid, reconstruction_panel, reconstructions, samples, tile
from subo.figures.latent_space import activity_per_dimension, animate_means, kl_per_dimension, latent_plane
from subo.figures.layers import layers
from subo.figures.strips import save_movie, strip
from subo.figures.style import BLUE as BLUE
from subo.figures.style import CLASS_COLORS as CLASS_COLORS
from subo.figures.style import GREY as GREY
from subo.figures.style import save
from subo.figures.table_maps import association, associations, missing_cells, odd_cells
from subo.figures.tables import columns
from subo.figures.training import training_curves, training_panel

__all__ = [
    "activity_per_dimension",
    "animate_means",
    "association",
    "associations",
    "columns",
    "decoder_grid",
    "kl_per_dimension",
    "latent_plane",
    "layers",
    "missing_cells",
    "odd_cells",
    "reconstruction_panel",
    "reconstructions",
    "samples",
    "save",
    "save_movie",
    "strip",
    "tile",
    "training_curves",
    "training_panel",
]
