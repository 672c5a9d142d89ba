"""Real clusters of several processes: Dask and Ray. One worker is killed in mid-run; no result is wrong or lost."""

from __future__ import annotations

import hashlib
import os
import signal
import warnings

import numpy as np
import pytest

import apyfal
from apyfal.exceptions import ParameterError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

JOBS = 1000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A thousand small files."""
    folder = tmp_path_factory.mktemp("objects")
    generator = np.random.default_rng(1)
    for number in range(JOBS):
        (folder / f"{number}").write_bytes(generator.bytes(1000 + number))
    return folder


def check(folder, results):
    """Compare all digests with hashlib."""
    expected = [hashlib.sha3_256((folder / f"{number}").read_bytes()).hexdigest() for number in range(JOBS)]
    assert [result["digest"] for result in results] == expected


@pytest.mark.filterwarnings("ignore")
def test_dask_with_a_killed_worker(files):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=4,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            resources={"apyfal": 1},
            memory_limit=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        executor = client.get_executor(resources={"apyfal": 1})
        with apyfal.AcceleratorPoolExecutor("sha3", executor=executor) as pool:
            results = []
            for number, result in enumerate(pool.process_map(str(files / f"{n}") for n in range(JOBS))):
                results.append(result)
                if number == JOBS // 3:
                    victim = next(iter(client.run(os.getpid).values()))
                    os.kill(victim, signal.SIGKILL)
            check(files, results)
            with pytest.raises(ParameterError, match="cannot travel to a cluster"):
                pool.process_submit(np.zeros(3))
            with pytest.raises(ParameterError, match="mask: ndarray cannot travel to a cluster"):
                pool.process_submit({"image": "s3://lab/image", "mask": np.zeros(3)})


@pytest.mark.filterwarnings("ignore")
def test_ray_with_a_killed_worker(files, monkeypatch):
    for name, value in {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "180",
    }.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        ray.init(
            num_cpus=4,
            resources={"apyfal": 4},
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
    try:
        with apyfal.AcceleratorPoolExecutor("sha3", executor=ray) as pool:
            pids = ray.remote(lambda: os.getpid()).options(resources={"apyfal": 1}, num_cpus=0)
            results = []
            for number, result in enumerate(pool.process_map(str(files / f"{n}") for n in range(JOBS))):
                results.append(result)
                if number == JOBS // 3:
                    os.kill(ray.get(pids.remote()), signal.SIGKILL)
            check(files, results)
    finally:
        ray.shutdown()
