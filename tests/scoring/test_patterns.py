"""Names by the rules of each trainer say the step, the epoch, the prompt's place, and the seed."""

import pytest

from finetune_monitor.scoring.patterns import IMAGES, WEIGHTS, Named, read_name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ana_e000010_02_20260101120000_42", Named("kohya", epoch=10, index=2, seed=42)),
        ("sample/ana_lora_e000010_02_20260101120000", Named("kohya", epoch=10, index=2)),
        ("e000001_00_20260101120000_7", Named("kohya", epoch=1, index=0, seed=7)),
        ("ana_001500_11_20260101120000_42", Named("kohya", step=1500, index=11, seed=42)),
        ("000000_00_20260101120000", Named("kohya", step=0, index=0)),
        ("validation_images/step_250_ana_portrait_0_1024x1024", Named("SimpleTuner", step=250, label="ana_portrait")),
        (
            "samples/1 - a photo of sks person/ana2026-01-01_12-00-00-training-sample-400-3-25",
            Named("OneTrainer", step=400, epoch=3, index=1, label="a photo of sks person"),
        ),
        ("2026-01-01_12-00-00-training-sample-400-3-25", Named("OneTrainer", step=400, epoch=3)),
        ("1767268800000__000000250_3", Named("ai-toolkit", step=250, index=3)),
        ("images/step-000300/p01-s1000", Named("finetune_monitor", step=300, index=1, seed=1000)),
        ("ComfyUI_00012_", Named("ComfyUI")),
        ("ana/batch_00012_", Named("ComfyUI")),
        ("00012-1234567890", Named("AUTOMATIC1111", seed=1234567890)),
        ("00012-7-a photo of sks person", Named("AUTOMATIC1111", seed=7)),
        ("holiday", None),
        ("IMG_20260101", None),
    ],
)
def test_names_of_images(name, said):
    assert read_name(name, IMAGES) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loras/ana-000010", Named("kohya", epoch=10, series="ana")),
        ("loras/ana-v2-000010", Named("kohya", epoch=10, series="ana-v2")),
        ("loras/ana-step00001500", Named("kohya", step=1500, series="ana")),
        ("output/checkpoint-500/pytorch_lora_weights", Named("diffusers", step=500)),
        ("checkpoint-500/pytorch_lora_weights", Named("diffusers", step=500)),
        ("weights/step-000300/pytorch_lora_weights", Named("diffusers", step=300)),
        ("save/ana2026-01-01_12-00-00-save-1500-3-25", Named("OneTrainer", step=1500, epoch=3, series="ana")),
        ("models/ana2026-01-01_12-00-00", Named("OneTrainer", series="ana")),
        ("ana/ana_000001500", Named("ai-toolkit", step=1500, series="ana")),
        ("loras/ana", None),
        ("loras/style_v15", None),
    ],
)
def test_names_of_lora_files(name, said):
    assert read_name(name, WEIGHTS) == said
