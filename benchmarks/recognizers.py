"""Time face recognizers in milliseconds per face, including cropping.

python benchmarks/recognizers.py
python benchmarks/recognizers.py dlib casia-webface PATH
"""

import argparse
import os
from functools import partial

from measure import Quantity, Rounds, alternate, gpu, listing, publish_result, seconds

from finetune_monitor.models.faces import FaceFinder
from finetune_monitor.models.recognizers import load_recognizer
from models import RECOGNIZER, astronaut_photos, recognizer_cache

FACES = 16
MILLISECONDS = Quantity("ms", "times as fast", smaller_is_faster=True, digits=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["dlib", RECOGNIZER], help="names, or paths of ONNX files")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    os.environ["FINETUNE_MONITOR_CACHE"] = os.environ["TORCH_HOME"] = str(recognizer_cache())
    device = "cuda" if gpu() else "cpu"
    images = astronaut_photos((512, 512), FACES)
    faces = [found[0] for found in FaceFinder(device).find(images)]
    sides = {name: seconds(partial(load_recognizer(name, device).embed, images, faces)) for name in options.names}
    alternate(sides, 1)
    values: Rounds = {
        os.path.basename(name): [1000 * found / FACES for found in rounds]
        for name, rounds in alternate(sides, options.rounds).items()
    }
    note = (
        f"- {FACES} faces at once, crops of one portrait at 512 px, {device}. `{RECOGNIZER}` is InceptionResnetV1 with "
        "random weights, which are as fast as VGGFace2's."
    )
    parts = [listing(values, MILLISECONDS, "one face, cropped and embedded"), note]
    publish_result("recognizers", "Recognizers", parts)


if __name__ == "__main__":
    main()
