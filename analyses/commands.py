"""The commands of the analyses package: study. Heavy imports wait until a command runs."""

import typer

from training import options
from training.commands import check_device

study = typer.Typer(help="Ask one question of a checkpoint: tables, figures and a verdict.", no_args_is_help=True)


@study.callback()
def studies() -> None:
    """Ask one question of a checkpoint: tables, figures and a verdict."""


@study.command()
def retrospective(
    ckpt: options.Ckpt,
    controls: options.Controls = options.DEFAULT_CONTROLS,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Do retrospective heads make this model learn in context? Locate them, remove them, judge.

    \b
    Example:
      interp study retrospective --ckpt zoo:mixed-0 --out demo
    """
    from analyses import retrospective as question
    from interp.commands import print_ablation, print_curves
    from interp.heads import show
    from interp.score_tables import print_scores
    from training import output
    from training.checkpoint import load

    checkpoint = load(ckpt, check_device(device))
    if out:
        output.prepare_directory(out)
    result = question.study(checkpoint, n_prompts=prompts, n_controls=controls, seed=seed)
    if out:
        question.write(result, out)
    if json:
        about = {
            "checkpoint": ckpt,
            "step": checkpoint.step,
            "seed": seed,
            "prompts": prompts,
            "controls": controls,
        }
        about |= {
            "question": question.QUESTION,
            "verdict": result.sentences,
            "found": [show((h,)) for h in result.found],
        }
        results = output.records(result.ablation.table) if result.ablation else []
        output.print_json(about | {"scores": result.scores.values, "chance": result.scores.chance, "results": results})
        return
    title, caption = f"{ckpt}, step {checkpoint.step}", f"{prompts} prompts, seed {seed}"
    print_curves(result.curves, title, caption)
    print_scores([result.scores], caption)
    if result.ablation:
        print_ablation(result.ablation, title)
    typer.echo(f"\n{question.QUESTION}\n")
    for sentence in result.sentences:
        typer.echo(f"- {sentence}")
    if out:
        typer.echo(f"\ntables, figures and summary.md: {out}/")
