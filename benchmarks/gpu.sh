#!/usr/bin/env bash
# Everything that needs a GPU, in one go of a quarter of an hour at most:
#
#     bash benchmarks/gpu.sh RESULTS_FOLDER
#
# Tests of the kernels compiled rather than interpreted, then seconds of kernels, of completions and of training steps.
# Each part has a time limit and leaves its output and its JSON in the folder; a part that fails does not stop the rest.
# PYTHON names the interpreter, `python` unless given; the package need not be installed.
set -uo pipefail
OUT=$(realpath -m "${1:?usage: bash benchmarks/gpu.sh RESULTS_FOLDER}")
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset TRITON_INTERPRET
mkdir -p "$OUT"
FAILED=()

part() { # NAME SECONDS COMMAND...
    local name=$1 limit=$2 began=$SECONDS
    shift 2
    echo "== $name (at most $limit s): $*"
    timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.txt" 2>&1
    local status=$?
    tail -n 30 "$OUT/$name.txt"
    echo "== $name: exit status $status after $((SECONDS - began)) s"
    [ "$status" -eq 0 ] || FAILED+=("$name")
}

part machine 20 bash -c "nvidia-smi; $PYTHON -c 'import torch, triton; print(torch.__version__, triton.__version__, torch.cuda.get_device_name())'"
part tests 200 "$PYTHON" -m pytest tests/sparse/backends tests/nets/test_passes.py tests/test_completer.py -p no:cacheprovider
part kernels 110 "$PYTHON" benchmarks/kernels.py --device cuda --points 180000 --backward --repeats 5 \
    --noise 0.985 0.05 --record "$OUT/kernels-backward.json"
part forward 60 "$PYTHON" benchmarks/kernels.py --device cuda --points 180000 --repeats 10 --record "$OUT/kernels.json"
part cuts 90 "$PYTHON" benchmarks/cuts.py --record "$OUT/cuts.json"
part cuts-of-one 90 "$PYTHON" benchmarks/cuts.py --copies 1 --record "$OUT/cuts-of-one.json"
part completion 240 "$PYTHON" benchmarks/completion_gpu.py --record "$OUT/completion.json"
part training 80 "$PYTHON" benchmarks/training.py --stages teacher --width 1.0 --batch-size 2 --scan-points 18000 \
    --truth-points 180000 --steps 24 --workers 4 --no-cpu --record "$OUT/training.json"

if [ "${#FAILED[@]}" -gt 0 ]; then
    echo "failed: ${FAILED[*]}"
    exit 1
fi
