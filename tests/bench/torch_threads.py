"""How many threads PyTorch computes on. Debian's OpenBLAS keeps threads of its own, of which torch.set_num_threads()
knows nothing: left alone they would make a "single" thread two, and get in the way of OpenMP's on all cores."""

import ctypes
import os
import statistics
import time

import torch


def openblas():
    """The OpenBLAS that torch has loaded; None: it has another BLAS, which follows torch.set_num_threads()."""
    try:
        return ctypes.CDLL("libopenblas.so.0", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None


def settle(blas, threads):
    """OpenBLAS's threads spin for about 30 ms after their last product."""
    if blas and threads > 1:
        time.sleep(0.05)


def use(threads, step):
    """As many for torch, and for OpenBLAS the better of one and as many, by the time of a few steps.

    Returns what to call when others are to have the machine."""
    torch.set_num_threads(threads)
    blas = openblas()
    times = {}
    for _ in range(3 if blas else 0):
        for count in {1, threads}:
            blas.openblas_set_num_threads(count)
            step()
            start = time.perf_counter()
            step()
            times.setdefault(count, []).append(time.perf_counter() - start)
            settle(blas, count)
    best = min(times, key=lambda count: statistics.median(times[count]), default=1)
    if blas:
        blas.openblas_set_num_threads(best)
    return lambda: settle(blas, best)
