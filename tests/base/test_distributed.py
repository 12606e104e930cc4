"""What processes share."""

from torch import distributed as dist

from finetune_monitor.base.distributed import gather_to_main


def test_the_first_process_keeps_its_own_object(tmp_path):
    """Images that it has begun to encode are known by identity."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        own = ["an image"]
        [found] = gather_to_main(own)
    finally:
        dist.destroy_process_group()
    assert found is own
