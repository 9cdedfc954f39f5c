#!/bin/bash
# Everything that only a GPU can show, in under nine minutes on one of them:
#
#     OUT=results bash benchmarks/gpu.sh
#
# Runs tests/gpu, the conformance suite on the GPU in fp32 and bf16, and `python -m benchmarks`. Each part has a limit;
# its log and outcome are in OUT (by default benchmarks/results), and the next part follows whatever becomes of it. Needs
# neither DeepSpeed nor FairScale nor PyAV. Without pytest the tests are skipped. Without a GPU all parts run, small, on
# the CPU. The exit status is 1 where a part has failed or was too slow. PYTHON names the interpreter.
set -u
cd "$(dirname "$0")/.." || exit 1
OUT=$(realpath -m "${OUT:-benchmarks/results}")
mkdir -p "$OUT" || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
SUMMARY="$OUT/summary.txt"
failed=0
: >"$SUMMARY"

say() { echo "$*" | tee -a "$SUMMARY"; }

# part NAME SECONDS COMMAND…: runs it, at most so long; the log is OUT/NAME.log
part() {
    local name=$1 limit=$2 began=$SECONDS code
    shift 2
    timeout --kill-after=10 "$limit" "$@" >"$OUT/$name.log" 2>&1
    code=$?
    case $code in
        0) say "$name: passed, $((SECONDS - began)) s" ;;
        5) say "$name: nothing to run, $((SECONDS - began)) s" ;; # pytest's code
        124 | 137) say "$name: FAILED, not done after $limit s" && failed=1 ;;
        *) say "$name: FAILED, code $code, $((SECONDS - began)) s: $(tail -n 1 "$OUT/$name.log")" && failed=1 ;;
    esac
}

"$PYTHON" - >"$OUT/environment.txt" 2>&1 <<'END'
import importlib, sys
print("python", sys.version.split()[0])
for name in "torch transformers timm numpy cv2 PIL simplejpeg pytest deepspeed fairscale av".split():
    try:
        print(name, getattr(importlib.import_module(name), "__version__", "is there"))
    except Exception as error:
        print(name, "missing:", " ".join(str(error).split())[:150])
END
has_gpu=$("$PYTHON" -c "import torch; print(int(torch.cuda.is_available()))" 2>>"$OUT/environment.txt" || echo 0)
QUICK=""
if [ "$has_gpu" = 1 ]; then
    say "GPU: $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)"
    DEVICE=cuda CASES=tests/conformance PRECISIONS="fp32 bf16"
else
    say "no GPU: the tests of tests/gpu are skipped, and the rest is small and runs on the CPU"
    DEVICE=cpu CASES=tests/conformance/test_pretrain.py PRECISIONS=fp32 # a CPU without bf16 takes minutes
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    QUICK="--quick --size micro --only matrix,encoder"
fi

if "$PYTHON" -c "import pytest" 2>/dev/null; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} HF_HUB_OFFLINE=1
    part tests_gpu 130 "$PYTHON" -m pytest -q -rs -p no:cacheprovider tests/gpu
    for precision in $PRECISIONS; do
        LAVENDER_TEST_DEVICE=$DEVICE LAVENDER_TEST_PRECISION=$precision part "conformance_$precision" 75 \
            "$PYTHON" -m pytest -q -rs -p no:cacheprovider -m "not slow" "$CASES"
    done
    [ "$has_gpu" = 1 ] && unset OMP_NUM_THREADS
else
    say "tests_gpu, conformance_fp32, conformance_bf16: skipped, pytest is not installed (pip install pytest)"
fi
# shellcheck disable=SC2086
part benchmarks 225 "$PYTHON" -m benchmarks $QUICK --minutes 2.75 --out "$OUT/benchmarks.json"
cat "$OUT/benchmarks.log"
say "logs: $OUT"
exit $failed
