"""The estimate of the loader's speed."""

from harness.doctor import loading_speed


def test_one_batch_is_enough_for_an_estimate(tmp_path):
    assert loading_speed.measure_rate(tmp_path, 0.0) > 0


def test_the_row(monkeypatch):
    monkeypatch.setattr(loading_speed, "measure_rate", lambda *_: 412.4)
    monkeypatch.setattr(loading_speed, "usable_cores", lambda: 8.0)
    (row,) = loading_speed.check_loading(None)
    assert row.level == "ok"
    assert row.says.startswith("about 412 images/s a worker, at most 3,299 on 8 cores (estimate; ")
    monkeypatch.setattr(loading_speed, "usable_cores", lambda: 1.0)
    assert "at most" not in next(loading_speed.check_loading(None)).says
