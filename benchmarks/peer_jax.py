"""A peer of peers.py: the VAE in JAX, an epoch as one jitted scan over its batches, on one thread."""

import os
from typing import Any

import torch
from torch import nn

from peer_trainers import OnEpoch, Plain, Setting, imported, layers_of, stored
from subo.data.splits import Split

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")  # before JAX

_JITTED: dict[Setting, Any] = {}


def jax_epoch(setting: Setting) -> Any:
    """A jitted function that makes all steps of an epoch."""
    jax, optax = imported("jax"), imported("optax")
    if setting in _JITTED:
        return _JITTED[setting]
    jnp, optimizer = jax.numpy, optax.adam(1e-3)
    act = {nn.Tanh: jnp.tanh, nn.ReLU: jax.nn.relu}[setting.activation]

    def apply(layers, h):
        for weight, bias in layers[:-1]:
            h = act(h @ weight + bias)
        return h @ layers[-1][0] + layers[-1][1]

    def loss_of(parameters, x, key):
        mean, log_variance = jnp.split(apply(parameters["encoder"], x), 2, axis=1)
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        distortion = optax.sigmoid_binary_cross_entropy(apply(parameters["decoder"], z), x).sum()
        return (distortion + 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum()) / len(x)

    def epoch(parameters, state, images, order, key):
        def step(carry, inputs):
            parameters, state = carry
            index, key = inputs
            bits, noise = jax.random.split(key)
            grey = images[index].astype(jnp.float32) / 255
            x = jax.random.bernoulli(bits, grey).astype(jnp.float32)
            loss, gradient = jax.value_and_grad(loss_of)(parameters, x, noise)
            change, state = optimizer.update(gradient, state)
            return (optax.apply_updates(parameters, change), state), loss

        return jax.lax.scan(step, (parameters, state), (order, jax.random.split(key, len(order))))

    _JITTED[setting] = jax.jit(epoch, donate_argnums=(0, 1)), optimizer
    return _JITTED[setting]


def train_jax(setting: Setting, data: dict[str, Split], epochs: int, on_epoch: OnEpoch) -> Plain:
    jax = imported("jax")
    jax.config.update("jax_platforms", "cpu")
    torch.manual_seed(0)
    jnp, plain = jax.numpy, Plain(setting)
    images = jnp.asarray(stored(data).numpy())
    epoch, optimizer = jax_epoch(setting)
    parameters = {
        name: [(jnp.array(layer.weight.detach().numpy().T), jnp.array(layer.bias.detach().numpy())) for layer in linear]
        for name, linear in layers_of(plain).items()
    }
    state, steps = optimizer.init(parameters), len(images) // setting.batch
    for number in range(epochs):
        order = torch.randperm(len(images))[: steps * setting.batch].view(steps, -1).int()
        inputs = images, jnp.asarray(order.numpy()), jax.random.key(number)
        (parameters, state), losses = epoch(parameters, state, *inputs)
        losses.block_until_ready()
        on_epoch()
    with torch.no_grad():
        for name, linear in layers_of(plain).items():
            for layer, (weight, bias) in zip(linear, parameters[name], strict=True):
                layer.weight.copy_(torch.tensor(jax.device_get(weight)).T)
                layer.bias.copy_(torch.tensor(jax.device_get(bias)))
    return plain
