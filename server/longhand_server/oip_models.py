"""What the Open Inference Protocol tells of models: their tensors, their setup, what they have done."""

from __future__ import annotations

from collections.abc import Sequence

from longhand.oip import inference_pb2 as oip
from longhand_server.config import ServerConfig
from longhand_server.cores import usable_cores
from longhand_server.errors import ModelNotFoundError
from longhand_server.oip_parameters import DEFAULT_PRIORITY, PRIORITY_LEVELS
from longhand_server.oip_tensors import INPUT, OUTPUTS
from longhand_server.registry import ModelRegistry, ServedModel
from longhand_server.statistics import Duration

# What runs a model, in the protocol's words.
PLATFORM = "longhand"
EXTENSIONS = ("model_configuration", "model_repository", "parameters", "schedule_policy", "statistics")
# Any number of images.
_SHAPE = [-1]
_TYPES = {"BYTES": oip.TYPE_STRING, "FP32": oip.TYPE_FP32}


def find_model(registry: ModelRegistry, name: str, version: str) -> ServedModel:
    """The model of that name and version; the protocol's clients like a version to be one number.

    Args:
        registry: The models served.
        name: Its name; empty = the default model.
        version: Its version, or the leading part of it ("1" of "1.2.0"); empty = the newest one.

    Raises:
        ModelNotFoundError: It is not served.
    """
    try:
        return registry.find(name, version)
    except ModelNotFoundError:
        wanted = name or registry.default.name
        for model in registry.all():
            if model.name == wanted and model.version.startswith(f"{version}."):
                return model
        raise


def write_metadata(model: ServedModel, versions: Sequence[str]) -> oip.ModelMetadataResponse:
    """A model's tensors; ``versions`` are all that are served under its name, the newest first."""
    tensor = oip.ModelMetadataResponse.TensorMetadata
    return oip.ModelMetadataResponse(
        name=model.name,
        versions=versions,
        platform=PLATFORM,
        inputs=[tensor(name=INPUT, datatype="BYTES", shape=_SHAPE)],
        outputs=[tensor(name=name, datatype=kind, shape=_SHAPE) for name, kind in OUTPUTS.items()],
    )


def write_config(model: ServedModel, config: ServerConfig, device: str) -> oip.ModelConfig:
    """A model's setup.

    Args:
        model: The model.
        config: The server's settings.
        device: Where its models compute.
    """
    batching = config.batching
    on_gpu = device != "cpu"
    return oip.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=PLATFORM,
        # By the protocol's meaning of it: the number of images is a dimension of the tensors themselves.
        max_batch_size=0,
        input=[oip.ModelInput(name=INPUT, data_type=oip.TYPE_STRING, dims=_SHAPE)],
        output=[
            oip.ModelOutput(name=name, data_type=_TYPES[kind], dims=_SHAPE) for name, kind in OUTPUTS.items()
        ],
        instance_group=[
            oip.ModelInstanceGroup(
                name=f"{model.name}_0",
                kind=oip.ModelInstanceGroup.KIND_GPU if on_gpu else oip.ModelInstanceGroup.KIND_CPU,
                count=1 if on_gpu else config.runtime.threads or usable_cores(),
                gpus=[int(device.partition(":")[2])] if on_gpu else [],
            )
        ],
        dynamic_batching=oip.ModelDynamicBatching(
            preferred_batch_size=[batching.max_batch_size] if batching.max_batch_size else [],
            max_queue_delay_microseconds=round(batching.max_delay_ms * 1000),
            priority_levels=PRIORITY_LEVELS,
            default_priority_level=DEFAULT_PRIORITY,
            default_queue_policy=oip.ModelQueuePolicy(
                timeout_action=oip.ModelQueuePolicy.REJECT,
                allow_timeout_override=True,
                max_queue_size=batching.max_queue,
            ),
        ),
        parameters={
            "max_images": oip.ModelParameter(string_value=str(config.listen.max_batch_items)),
            "max_image_bytes": oip.ModelParameter(string_value=str(config.image.max_bytes)),
        },
        model_transaction_policy=oip.ModelTransactionPolicy(decoupled=False),
    )


def write_statistics(model: ServedModel, registry: ModelRegistry) -> oip.ModelStatistics:
    """What a model has done. perf_analyzer looks for it under the leading number of its version."""
    number = model.version.partition(".")[0]
    short = number.isdigit() and find_model(registry, model.name, number) is model
    counts = model.statistics
    batches = counts.batches
    return oip.ModelStatistics(
        name=model.name,
        version=number if short else model.version,
        last_inference=counts.last_ms,
        inference_count=counts.images,
        execution_count=sum(batch.count for batch in batches.values()),
        inference_stats=oip.InferStatistics(
            success=_duration(counts.success),
            fail=_duration(counts.fail),
            queue=_duration(counts.queue),
            compute_input=_duration(counts.decode_image),
            compute_infer=_duration(counts.infer),
            compute_output=_duration(counts.beam),
            cache_hit=oip.StatisticDuration(),
            cache_miss=oip.StatisticDuration(),
        ),
        batch_stats=[
            oip.InferBatchStatistics(batch_size=size, compute_infer=_duration(batch))
            for size, batch in batches.items()
        ],
    )


def write_index(model: ServedModel) -> oip.RepositoryIndexResponse.ModelIndex:
    """A model's entry in the list of models."""
    reason = ""
    if model.failed:
        reason = "it could not be loaded; the server's log says why"
    elif model.loaded is None:
        reason = "not in memory yet: the first request loads it"
    return oip.RepositoryIndexResponse.ModelIndex(
        name=model.name,
        version=model.version,
        state="UNAVAILABLE" if model.failed else "READY",
        reason=reason,
    )


def _duration(duration: Duration) -> oip.StatisticDuration:
    return oip.StatisticDuration(count=duration.count, ns=duration.ns)
