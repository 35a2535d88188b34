"""The local trainer, end to end on a tiny random model."""
import pytest
pytest.importorskip("torch")
from pathlib import Path
from recall.trainers.local import LocalTrainer, open_run
from recall.trainers.recipe import *
class Silent:
    def start(self, *a, **k): pass
    def baseline(self, b): pass
    def step(self, m): pass
    def validation(self, n): pass
    def note(self, t): pass
async def test_x(tiny_model, tmp_path):
    import time
    t=time.time()
    r = TrainRecipe(steps=4, reward="recall", policy=PolicySettings(model=str(tiny_model)), tasks=TaskSource(stages=(("1","2"),)),
      rollout=RolloutSettings(groups=3, group_size=3), validation=ValidationSettings(kinds=("1","2"), tasks=2, final_tasks=2, every=2))
    run = open_run(tmp_path/"run", r, resume=False)
    tr = LocalTrainer(r, run, Silent())
    print("init", time.time()-t)
    out = await tr.train()
    print(time.time()-t, out)
    print(*run.read_metrics(), sep="\n")
    print(*(tmp_path/"run").rglob("*"), sep="\n")
