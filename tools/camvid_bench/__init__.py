"""Parts of tools/bench_camvid.py."""
