"""The models, with the weights of those in use on the device."""

from collections.abc import Callable, Mapping

from workers.engine.pipeline import StepPipeline
from workers.engine.report import Report
from workers.engine.residency import Residency


class DeviceModels:
    """Moves weights as the residency says: those unused for longest leave for host memory."""

    def __init__(self, pipelines: Mapping[str, StepPipeline], residency: Residency, clock: Callable[[], float]) -> None:
        self._pipelines = pipelines
        self._residency = residency
        self._clock = clock

    def __getitem__(self, model: str) -> StepPipeline:
        """The model, wherever its weights are."""
        return self._pipelines[model]

    def switch_s(self, model: str) -> float:
        """Seconds until its weights are on the device, as far as is known; 0 when they are."""
        return self._residency.switch_s(model)

    def bring(self, model: str, report: Report) -> StepPipeline:
        """The model with its weights on the device. What the move took is reported. Raises torch.OutOfMemoryError."""
        pipeline = self._pipelines[model]
        resident = self._residency.is_resident(model)
        leaving = self._residency.bring(model)
        if resident:
            return pipeline
        started_s = self._clock()
        try:
            for other in leaving:
                self._pipelines[other].to_host()
            pipeline.to_device()
        except BaseException:
            self._residency.drop(model)
            pipeline.to_host()  # what of it had arrived
            raise
        report.moves[model] = self._clock() - started_s
        self._residency.moved(model, report.moves[model])
        return pipeline

    def keep_only(self, model: str) -> None:
        """Send all others' weights to host memory."""
        for other, pipeline in self._pipelines.items():
            if other != model and self._residency.is_resident(other):
                pipeline.to_host()
                self._residency.drop(other)
