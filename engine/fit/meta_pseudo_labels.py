"""The `meta_pseudo_labels` objective: a teacher that learns from how its student does (Pham et al. 2021, arXiv 2003.10580).

One step (Meta Pseudo Labels, Pham et al. 2021, section 2 and appendix A):

1  The teacher answers for labelled images, and for weak and strong views of pool images; its answers for the strong
   ones become the student's labels: drawn (`labels: sampled`) or as they are (`soft`).
2  The student takes a step on these labels alone.
3  How its loss on the labelled batch changed by that is the feedback (engine.fit.feedback).
4  The teacher takes a step on feedback + labelled loss + UDA.

The student is what comes out; a recipe then fine-tunes it on true labels. Both of its labelled losses are of the same
images, in fp32, without dropout, and with batch norm by the batch's own statistics, which leave no trace: running
statistics, which a step moves too, have no part in them, so that their difference is what the weights have learnt. Losses
and products are means over all workers before the feedback is formed.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.feedback import draw, product, sampled_term, slopes, soft_term
from engine.fit.learner import Learner, make_network, own_statistics
from engine.fit.losses import soft_ce
from engine.fit.lr_schedule import learning_rate
from engine.fit.objective import Context, Objective
from engine.fit.stream_views import WEAK, StreamViews
from engine.fit.weak_strong import (
    STRONG_VIEW,
    WEAK_VIEW,
    labelled_loss,
    labelled_weak_strong,
    needs_labelled_and_pool,
)
from engine.fit.workers import average_over_workers
from engine.images.counter_rng import uniforms, view_seeds
from engine.images.crops import RandomCrop
from engine.settings.block import Block, SettingsError, parse
from engine.settings.fit import FitSettings, NoiseSettings


class MetaArguments(Block):
    """`fit.objective_args`; the defaults are those of the paper's CIFAR-10 run, but for the ones that are steps."""

    arm: Literal["full", "no_feedback", "uda_only"] = Field(
        "full",
        description="no_feedback: h = 0, the student follows a UDA teacher; uda_only: that teacher without student",
    )
    labels: Literal["sampled", "soft"] = "sampled"
    feedback: Literal["difference", "product"] = Field(
        "difference",
        description="h of sampled labels: old minus new loss, or its first-order form, exact for SGD steps",
    )
    feedback_weight: float = Field(1.0, ge=0, le=10**6, description="of the feedback in the teacher's loss")
    feedback_reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="over the pool's batch; mean: the published programs; sum: the derivative, batch.pool times as much",
    )
    baseline: float = Field(
        0.99, ge=0, lt=1, description="momentum of the mean feedback that is taken off sampled h, against its variance"
    )
    student_lr: float | None = Field(
        None, gt=0, le=1000, description="the student's rate; the teacher's when not given"
    )
    student_wait: int = Field(
        0,
        ge=0,
        le=10**9,
        description="first steps in which the teacher learns alone; the student's schedule begins after them",
    )
    student_warmup_steps: int | None = Field(
        None, ge=0, le=10**9, description="the student's warm-up, after its wait; the teacher's when not given"
    )
    student_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of what the student learns")
    strong_from: Literal["image", "weak"] = Field(
        "image", description="what the strong view is made from; weak: the weak view, as in the published program"
    )
    uda_weight: float = Field(8.0, ge=0, le=10**6)
    uda_steps: int = Field(
        0, ge=0, le=10**9, description="steps over which uda_weight rises from 0; 5000 of 300,000 in the paper"
    )
    temperature: float = Field(0.7, gt=0, le=1000, description="UDA's targets are softmax(logits / temperature)")
    threshold: float = Field(0.6, ge=0, le=1, description="least probability of UDA's targets, after the temperature")
    weak: NoiseSettings = Field(WEAK, description="weak view of the pool; noise.pool is the strong one")


def student_settings(settings: FitSettings, arguments: MetaArguments) -> FitSettings:
    """The fit of the student: its steps, warm-up and schedule are counted from its first step, and so is the average of its weights.

    Raises SettingsError when its wait and warm-up fill the fit, or when its strong view would crop what has no more borders to crop.
    """
    wait, warmup = arguments.student_wait, arguments.student_warmup_steps
    warmup = settings.warmup_steps if warmup is None else warmup
    if wait + warmup >= settings.steps:
        raise SettingsError(
            f"student_wait={wait} and its warm-up of {warmup} steps fill the fit of {settings.steps}: the student would learn nothing at its rate"
        )
    strong = settings.noise.get("pool")
    if arguments.strong_from == "weak" and strong is not None and strong.scale is not None:
        raise SettingsError(
            "strong_from=weak takes the weak view's crop: set objective_args.weak.scale, and leave noise.pool.scale out"
        )
    changes = {
        "lr": arguments.student_lr or settings.lr,
        "steps": settings.steps - wait,
        "warmup_steps": warmup,
        "decay_steps": [step - wait for step in settings.decay_steps if step > wait],
    }
    return settings.model_copy(update=changes)


class Baseline(nn.Module):
    """The mean of the feedback so far; a module, so that it travels in checkpoints."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))


class MetaPseudoLabels(Objective):
    """Teacher and student of one architecture, drawn apart at random, each with its optimiser."""

    ignores = ("loss", "stream_weight")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = context.settings
        needs_labelled_and_pool(settings)
        arguments = self.arguments = context.arguments(MetaArguments)
        teacher, self.loaded = make_network(context, context.class_names)
        student, _ = make_network(context, context.class_names, seed_offset=1)
        self.views = StreamViews(context, teacher, labelled_weak_strong(context, arguments.weak))
        mean = arguments.feedback_reduction == "mean"
        self.weight = arguments.feedback_weight / (settings.batch["pool"] if mean else 1)
        if arguments.arm == "no_feedback":
            self.weight = 0.0
        averaged = settings.model_ema and arguments.arm == "uda_only"
        self.teacher = Learner(context, teacher, settings.model_copy(update={"model_ema": averaged}))
        self.parts = self.teacher.parts("teacher")
        if arguments.arm != "uda_only":
            self.student = Learner(context, student, student_settings(settings, arguments))
            self.baseline = Baseline().to(context.device)
            self.parts |= {**self.student.parts("student"), "baseline": self.baseline}

    @classmethod
    def images_per_step(cls, settings: FitSettings) -> float:
        """On the average of all steps. The teacher's as UDA's; the student's: strong views both ways, and for the feedback labelled images twice
        forward, or once both ways; soft labels ask for the slope at the strong views on top, two forwards' work.
        """
        labelled, pool = settings.batch["labelled"], settings.batch["pool"]
        teacher = labelled + 2 * pool
        arguments = parse(MetaArguments, settings.objective_args, "objective_args of meta_pseudo_labels")
        if arguments.arm == "uda_only":
            return teacher
        twice = arguments.labels == "sampled" and arguments.feedback == "difference"
        student = pool + (2 * labelled / 3 if twice else labelled)
        student += 2 * pool / 3 if arguments.labels == "soft" else 0
        return teacher + student * (1 - min(1.0, arguments.student_wait / settings.steps))

    def crops(self, stream: str) -> tuple[RandomCrop, ...]:
        return self.views.crops(stream)

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        arguments = self.arguments
        labelled, pool = (batches[name].to(self.context.device) for name in ("labelled", "pool"))
        known = self.views("labelled", labelled)
        weak = self.views("pool", pool, WEAK_VIEW)
        chained = arguments.strong_from == "weak"
        strong = (
            self.views.chained("pool", pool, WEAK_VIEW, STRONG_VIEW)
            if chained
            else self.views("pool", pool, STRONG_VIEW)
        )
        self.teacher.begin(step)
        answers = self.teacher(torch.cat([known, weak, strong])).split([len(known), len(weak), len(strong)])
        true = labelled_loss(answers[0], labelled, self.context)
        target = (answers[1].detach() / arguments.temperature).softmax(1)
        uda = (soft_ce(answers[2], target) * (target.amax(1) >= arguments.threshold)).mean()
        ramp = min(1.0, step / arguments.uda_steps) if arguments.uda_steps else 1.0
        loss = true + ramp * arguments.uda_weight * uda
        metrics: dict[str, Tensor | float] = {"loss/labelled": true.detach(), "loss/uda": uda.detach()}
        if arguments.arm != "uda_only":
            term, measured = self.teach(answers[2], strong, pool, known, labelled, step)
            loss = loss + self.weight * term
            metrics |= measured
        return {"loss": loss.detach(), **metrics, **self.teacher.update_weights(loss, step)}

    def teach(
        self, answers: Tensor, strong: Tensor, pool: Batch, known: Tensor, labelled: Batch, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The student's step on the teacher's `answers` (B, C) for the `strong` views, and what the teacher pays for it."""
        own = step - self.arguments.student_wait
        if own < 0:
            nothing = torch.zeros((), device=answers.device)
            return nothing, {"loss/student": nothing, "feedback": nothing}
        probabilities, rate = answers.detach().softmax(1), learning_rate(self.student.settings, own)
        if self.arguments.labels == "soft":
            before = {name: weight.detach().clone() for name, weight in self.learning()}
            loss = self.fit_student(strong, probabilities, own)
            with own_statistics(self.student.model):
                slope = slopes(self.student.model, before, self.student_gradient(known, labelled), strong)
            term = soft_term(answers, rate, slope)
            return term, {"loss/student": loss, "feedback": -term.detach()}
        drawn = draw(probabilities, uniforms(view_seeds(pool.seeds, 3), 1)[:, 0])
        target = F.one_hot(drawn, answers.shape[1]).to(answers.dtype)
        if self.arguments.feedback == "difference":
            old = self.student_loss(known, labelled)
            loss = self.fit_student(strong, target, own)
            feedback = average_over_workers(old - self.student_loss(known, labelled))
        else:
            gradients: dict[str, Tensor] = {}
            loss = self.fit_student(strong, target, own, gradients)
            feedback = product(rate, self.student_gradient(known, labelled), gradients)
        term = self.context.world * sampled_term(answers, drawn, feedback - self.baseline.mean)
        self.baseline.mean.lerp_(feedback, 1 - self.arguments.baseline)
        return term, {"loss/student": loss, "feedback": feedback}

    def fit_student(
        self, strong: Tensor, target: Tensor, step: int, gradients: dict[str, Tensor] | None = None
    ) -> Tensor:
        """One step of the student on the teacher's labels; returns its loss before it, a scalar. `gradients`: as in `Learner.update_weights`.

        `step`: counted from the student's first.
        """
        self.student.begin(step)
        if share := self.arguments.student_smoothing:
            target = target * (1 - share) + share / target.shape[1]
        loss = soft_ce(self.student(strong), target).mean()
        self.student.update_weights(loss, step, gradients)
        return loss.detach()

    @torch.no_grad()
    def student_loss(self, known: Tensor, labelled: Batch) -> Tensor:
        """This worker's labelled loss of the student as it is, a scalar."""
        with own_statistics(self.student.model):
            return labelled_loss(self.student.model(known), labelled, self.context)

    def student_gradient(self, known: Tensor, labelled: Batch) -> dict[str, Tensor]:
        """The gradient of the labelled loss of the student as it is, the mean over workers."""
        weights = dict(self.learning())
        with own_statistics(self.student.model):
            loss = labelled_loss(self.student.model(known), labelled, self.context)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        flat = average_over_workers(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([weight.numel() for weight in weights.values()])
        return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}

    def learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The student's weights by name, but for frozen ones."""
        return ((name, weight) for name, weight in self.student.model.named_parameters() if weight.requires_grad)

    def export(self) -> nn.Module:
        return (self.teacher if self.arguments.arm == "uda_only" else self.student).export()
