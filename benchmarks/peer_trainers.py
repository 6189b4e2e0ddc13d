"""How each peer of peers.py is trained, as its own documentation has it: functions `(setting, data, epochs, on_epoch)`.

`data` has "train", grey images stored as bytes, and "validation", if the best epoch is to be kept by it.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import subo
from subo.data.splits import Split
from subo.distributions.gaussian import Gaussian
from subo.parts.networks import Tanh

OnEpoch = Callable[[], None]


@dataclass(frozen=True)
class Setting:
    """A network and how it is trained; `half` is what the encoder's second half is multiplied by to be log sigma."""

    hidden: tuple[int, ...] = (200, 200)
    latents: int = 50
    activation: type[nn.Module] = nn.Tanh
    batch: int = 100
    half: float = 0.5


SAME = Setting()


def imported(name: str) -> Any:
    """A peer's module; says what to install if it isn't there."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f'{error}: pip install "subo[peers]"') from error


class Plain(nn.Module):
    """Encoder and decoder by hand, as stacks of layers."""

    def __init__(self, setting: Setting):
        super().__init__()
        widths = [784, *setting.hidden]
        self.factor = 2 * setting.half
        self.encoder = self.stack([*widths, 2 * setting.latents], setting.activation)
        self.decoder = self.stack([setting.latents, *widths[::-1]], setting.activation)

    @staticmethod
    def stack(widths: list[int], activation: type[nn.Module]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), activation()]
        return nn.Sequential(*layers[:-1])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, second = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return mean, self.factor * second  # the log-variance

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(x)
        return self.decoder(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)), mean, log_variance


def drawn(grey: Tensor) -> Tensor:
    """Bits; `torch.bernoulli` takes two to three times as long."""
    return (torch.rand_like(grey) < grey).float()


def rate_of(mean: Tensor, log_variance: Tensor) -> Tensor:
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()


class Encoded(nn.Module):
    """q(z|x) as a peer has it, for subo."""

    def __init__(self, plain: Plain):
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor) -> Gaussian:
        mean, log_variance = self.plain.encode(x)
        return Gaussian(mean, torch.exp(0.5 * log_variance), 1)


def as_subo(plain: Plain, setting: Setting) -> subo.VAE:
    """The same model, its decoder as subo's."""
    decoder = decoder_of(setting)
    nn.Sequential(*list(decoder)[1:]).load_state_dict(plain.decoder.state_dict())  # after the layer that flattens
    likelihood = subo.Conditional(subo.Bernoulli((1, 28, 28)), decoder)
    return subo.VAE(subo.StandardNormal(setting.latents), likelihood, Encoded(plain))


def decoder_of(setting: Setting) -> nn.Sequential:
    activation = Tanh if setting.activation is nn.Tanh else setting.activation
    return subo.mlp(setting.latents, 784, hidden=setting.hidden[::-1], activation=activation)


def train_subo(setting: Setting, data: dict[str, Split], epochs: int, on_epoch: OnEpoch) -> subo.VAE:
    torch.manual_seed(0)
    if "validation" in data:  # its own settings
        known = subo.load_data("mnist", binarize="dynamic")
        objective = subo.make("vae", known)
        settings = subo.training_settings(objective, known, epochs=epochs)
        subo.fit(objective, known, **settings, on_epoch=lambda _: on_epoch())
        return objective.model
    q = subo.Gaussian((setting.latents,))
    model = subo.VAE(
        subo.StandardNormal(setting.latents),
        subo.Conditional(subo.Bernoulli((1, 28, 28)), decoder_of(setting)),
        subo.Conditional(q, subo.mlp(784, q.num_params, hidden=setting.hidden)),
    )
    objective = subo.Objective(model)
    subo.fit(objective, data["train"], epochs=epochs, batch_size=setting.batch, on_epoch=lambda _: on_epoch())
    return model


def train_tensors(setting: Setting, data: dict[str, Split], epochs: int, on_epoch: OnEpoch) -> Plain:
    torch.manual_seed(0)
    model, images = Plain(setting), stored(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for _ in range(epochs):
        total = 0.0
        for index in torch.randperm(len(images)).split(setting.batch):
            x = drawn(images[index] / 255)
            logits, mean, log_variance = model(x)
            distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            loss = (distortion + rate_of(mean, log_variance)) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        on_epoch()
    return model


def stored(data: dict[str, Split]) -> Tensor:
    x = data["train"].x
    assert isinstance(x, Tensor)
    return x.flatten(1)


def train_loader(setting: Setting, data: dict[str, Split], epochs: int, on_epoch: OnEpoch) -> Plain:
    torch.manual_seed(0)
    model = Plain(setting)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    dataset = TensorDataset(stored(data).float() / 255, torch.zeros(len(data["train"])))
    loader = DataLoader(dataset, batch_size=setting.batch, shuffle=True)
    for _ in range(epochs):
        total = 0.0
        for grey, _label in loader:
            x = drawn(grey.view(-1, 784))
            optimizer.zero_grad()
            logits, mean, log_variance = model(x)
            distortion = F.binary_cross_entropy(torch.sigmoid(logits), x, reduction="sum")
            loss = (distortion + rate_of(mean, log_variance)) / len(x)
            loss.backward()
            total += loss.item() * len(x)
            optimizer.step()
        on_epoch()
    return model


def pythae_model(plain: Plain, setting: Setting) -> Any:
    """pythae's VAE of bits with these networks, by its own base classes; in training it draws the bits."""
    vae, nn_ = imported("pythae.models"), imported("pythae.models.nn")
    output = imported("pythae.models.base.base_utils").ModelOutput

    class Encoder(nn_.BaseEncoder):
        def __init__(self):
            super().__init__()
            self.plain, self.latent_dim = plain.encoder, setting.latents

        def forward(self, x):
            mean, log_variance = self.plain(x.flatten(1)).chunk(2, dim=1)
            return output(embedding=mean, log_covariance=log_variance)

    class Decoder(nn_.BaseDecoder):
        def __init__(self):
            super().__init__()
            self.plain = plain.decoder

        def forward(self, z):
            return output(reconstruction=torch.sigmoid(self.plain(z)).view(-1, 1, 28, 28))

    class Drawn(vae.VAE):
        def forward(self, inputs, **options):
            if self.training:
                inputs = {**inputs, "data": drawn(inputs["data"])}
            return super().forward(inputs, **options)

    config = vae.VAEConfig(input_dim=(1, 28, 28), latent_dim=setting.latents, reconstruction_loss="bce")
    return Drawn(config, encoder=Encoder(), decoder=Decoder())


def train_pythae(setting: Setting, data: dict[str, Split], epochs: int, on_epoch: OnEpoch) -> Plain:
    trainers, pipelines = imported("pythae.trainers"), imported("pythae.pipelines")
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("pythae"):
            logging.getLogger(name).setLevel(logging.ERROR)

    class Marks(imported("pythae.trainers.training_callbacks").TrainingCallback):
        def on_epoch_end(self, training_config, **_):
            on_epoch()

    torch.manual_seed(0)
    plain = Plain(setting)
    model = pythae_model(plain, setting)
    train = stored(data).view(-1, 1, 28, 28).float() / 255
    own: dict[str, Any] = {"learning_rate": 1e-3}
    held_out = None
    if "validation" in data:  # its README
        held_out = data["validation"].x
        own |= {"optimizer_cls": "AdamW", "optimizer_params": {"weight_decay": 0.05, "betas": (0.91, 0.995)}}
        own |= {"scheduler_cls": "ReduceLROnPlateau", "scheduler_params": {"patience": 5, "factor": 0.5}}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        config = trainers.BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            per_device_train_batch_size=setting.batch,
            per_device_eval_batch_size=setting.batch,
            no_cuda=True,
            **own,
        )
        pipeline = pipelines.TrainingPipeline(training_config=config, model=model)
        pipeline(train_data=train, eval_data=held_out, callbacks=[Marks()])
        best = pipeline.trainer._best_model
    plain.encoder, plain.decoder = best.encoder.plain, best.decoder.plain
    return plain


def pyro_pair(plain: Plain, setting: Setting) -> tuple[Callable, Callable]:
    """Model and guide as in Pyro's example."""
    pyro, dist = imported("pyro"), imported("pyro.distributions")

    def model(x: Tensor) -> None:
        pyro.module("decoder", plain.decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], setting.latents)
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            image = torch.sigmoid(plain.decoder(z))
            pyro.sample("obs", dist.Bernoulli(image, validate_args=False).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", plain.encoder)
        with pyro.plate("data", x.shape[0]):
            mean, log_variance = plain.encode(x)
            pyro.sample("latent", dist.Normal(mean, torch.exp(0.5 * log_variance)).to_event(1))

    return model, guide


def train_pyro(
    setting: Setting, data: dict[str, Split], epochs: int, on_epoch: OnEpoch, loss: str = "Trace_ELBO"
) -> Plain:
    pyro, infer = imported("pyro"), imported("pyro.infer")
    torch.manual_seed(0)
    pyro.clear_param_store()
    plain, images = Plain(setting), stored(data)
    adam = imported("pyro.optim").Adam({"lr": 1e-3})
    inference = infer.SVI(*pyro_pair(plain, setting), adam, loss=getattr(infer, loss)())
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(setting.batch):
            inference.step(drawn(images[index] / 255))
        on_epoch()
    return plain


def layers_of(plain: Plain) -> dict[str, list[nn.Linear]]:
    stacks = {"encoder": plain.encoder, "decoder": plain.decoder}
    return {name: [layer for layer in stack if isinstance(layer, nn.Linear)] for name, stack in stacks.items()}
