"""Questions about blocks a second, on one thread, and what the questions consist of.

python benchmarks/questions.py --output benchmarks/results/questions.json
"""

import statistics
import time

from measuring import Figure, Measurements, benchmark_parser, parsed, report

from vl_alignment.data.blocks import make_questions, make_scene
from vl_alignment.metrics.question_statistics import question_statistics

LEAST_A_SECOND, LEAST_SHARE, LEAST_HOPS = 2000.0, 10.0, 25.0


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--scenes", type=int, default=2000, help="scenes, ten questions each")
    arguments = parsed(parser)
    number = 20 if arguments.quick else arguments.scenes
    measurements = Measurements("cpu", "fp32", arguments.repeats)
    begin = time.perf_counter()
    scenes = [make_scene(0, "test", index) for index in range(number)]
    scene_seconds = time.perf_counter() - begin
    processor_seconds = []

    def ask() -> None:
        start = time.process_time()
        for scene in scenes:
            scene.__dict__.pop("relationships", None)  # which a scene keeps after it was asked for them
            make_questions(scene)
        processor_seconds.append(time.process_time() - start)

    seconds = measurements.medians("questions", {"questions": ask})["questions"]
    questions = [question for scene in scenes for question in make_questions(scene)]
    beside = f"{number} scenes of 3 to 10 objects, ten questions each, one process"
    figures = measurements.figures
    figures["questions_per_second"] = Figure(
        len(questions) / seconds, "questions/s", beside, LEAST_A_SECOND, at_least=True
    )
    figures["questions_per_processor_second"] = Figure(
        len(questions) / statistics.median(processor_seconds[1:]),
        "questions/s",
        "not counting while other programs had the core",
    )
    figures["scenes_per_second"] = Figure(number / scene_seconds, "scenes/s", "the scenes alone, for comparison")
    content = question_statistics(
        [question.question_type for question in questions],
        [question.answer for question in questions],
        [question.hops for question in questions],
    )
    for name, value in content.items():
        if name == "questions":
            continue
        limit = None
        if name.startswith("share") and "hops" not in name:
            limit = LEAST_SHARE
        elif name == "share_two_or_more_hops":
            limit = LEAST_HOPS
        figures[name] = Figure(value, "%", beside, limit, at_least=True)
    report(figures, __file__, arguments.output)


if __name__ == "__main__":
    main()
