"""Serves a model file with llama.cpp's own HTTP server on a free loopback port.

The first line on standard output is the server's address. It runs until standard input is closed, so that it never outlives
whoever started it.

    python serve_gguf.py MODEL.gguf
"""

import sys

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 16384
    params.n_parallel = 4
    # One core for each, so that the rest of a small machine is left to whoever is tested.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
