#!/usr/bin/env bash
# The rows of Tables 1 and 3 to 8 at the size `small`, from the bundled teacher: the teacher fine-tuned by Diffusion-DPO, a
# student for every row, refiners tuned on the scenes of the teacher, of plain score distillation and of the usual student
# (whose variants share its refiner), scores on held-out simulated streets and on folders of yours.
#
#     bash runs/small.sh                                   # days on two cores
#     JOBS=2 STEPS=150 bash runs/small.sh                  # two runs side by side, a quarter of the steps
#     JOBS=4 SCORED="data/prepared/raw0005" bash runs/small.sh
#
# The same command goes on where an interrupted one stopped. With OMP_NUM_THREADS=1 runs side by side share the cores best.
set -euo pipefail

OUT=${OUT:-runs/small}       # receives data, runs, models and scores
JOBS=${JOBS:-1}              # runs, or evaluations, side by side
STEPS=${STEPS:-600}          # of every student
HEAD_START=${HEAD_START:-40} # of these the assistants learn alone
REFINER_STEPS=${REFINER_STEPS:-300}
REFINER_BATCH=${REFINER_BATCH:-2} # crops a step; on a GPU 8 take little longer
STREETS=${STREETS:-100}      # simulated to train on
SCORED=${SCORED:-}           # further folders that `densescan data prepare` or `densescan data simulate` wrote
METRICS=${METRICS:-chamfer jsd iou precision_recall}
FAILED=$OUT/failed

side_by_side() { # COMMAND...: in the background, once fewer than JOBS are running; what fails is named at the end
    while (($(jobs -rp | wc -l) >= JOBS)); do wait -n || true; done
    ("$@" || echo "$*" >>"$FAILED") &
}

all_done() { # wait for them, and stop here if one failed
    wait
    if [[ -s $FAILED ]]; then
        echo "failed:" && cat "$FAILED"
        exit 1
    fi >&2
}

train() { # RUN STAGE RECIPE [OPTION...]
    densescan train "$2" --recipe "$3" --data "$OUT/data/train" --out "$OUT/runs/$1" "${@:4}"
}

student() { # RUN STAGE RECIPE [TEACHER]
    train "$1" "$2" "$3" --teacher "${4:-small-teacher}" --max-steps "$STEPS" --head-start "$HEAD_START"
}

refiner() { # COMPLETER MODEL: a refiner that learns what this one's scenes lack
    train "refiner-$1" refiner small-tuning --completer "$2" --start-from small \
        --max-steps "$REFINER_STEPS" --batch-size "$REFINER_BATCH"
}

merge() { # NAME MODEL STEPS COMPLETER: with the refiner that was tuned on the last one's scenes
    densescan weights merge "$2" "$OUT/runs/refiner-$4/model" -o "$OUT/models/$1" \
        --replace --float16 --share small --completion steps="$3" guidance_scale=1.0
}

score() { # DATA METHOD...
    read -ra metrics <<<"$METRICS"
    densescan evaluate "$1" "${@:2}" --metrics "${metrics[@]}" --workers 1 --out "$OUT/scores/$(basename "$1")"
}

mkdir -p "$OUT"
rm -f "$FAILED"
densescan data simulate "$OUT/data/train" --seeds "0:$STREETS" --workers "$JOBS"
densescan data simulate "$OUT/data/held-out" --seeds 1000:1100 --frames 1 --workers "$JOBS"

side_by_side refiner teacher small-teacher
side_by_side train diffusion-dpo diffusion-dpo small --teacher small-teacher
side_by_side student distillation-dpo distillation-dpo small
side_by_side student score-distillation score-distillation small
for variant in lam-1.05 lam-1.2 lam-1.5 lam-2.0 jsd one-assistant; do
    side_by_side student "distillation-dpo-$variant" distillation-dpo "small-$variant"
done
all_done
for run in distillation-dpo score-distillation; do side_by_side refiner "$run" "$OUT/runs/$run/model"; done
side_by_side student distillation-dpo-tuned-teacher distillation-dpo small-tuned-teacher "$OUT/runs/diffusion-dpo/model"
all_done

students=(distillation-dpo score-distillation distillation-dpo-{lam-1.05,lam-1.2,lam-1.5,lam-2.0,jsd,one-assistant,tuned-teacher})
merge teacher small-teacher 50 teacher
merge diffusion-dpo "$OUT/runs/diffusion-dpo/model" 50 teacher
for run in "${students[@]}"; do
    completer=distillation-dpo
    if [[ $run == score-distillation ]]; then completer=$run; fi
    merge "$run" "$OUT/runs/$run/model" 8 "$completer"
done

of() { echo "$1-$2=$OUT/models/$1:steps=${2/-coarse/:coarse}"; } # MODEL STEPS[-coarse]: a row's method
read -ra folders <<<"$SCORED"
for data in "$OUT/data/held-out" "${folders[@]}"; do
    side_by_side score "$data" bare jitter:0.1 jitter:0.2 jitter:0.3 jitter:0.1:60 jitter:0.2:60 refined:small:0.1
    side_by_side score "$data" small small:coarse small:steps=4 small:steps=2 small:steps=1
    side_by_side score "$data" "$(of teacher 50)" "$(of teacher 50-coarse)" "$(of teacher 8)" "$(of teacher 8-coarse)"
    side_by_side score "$data" "$(of diffusion-dpo 50)"
    side_by_side score "$data" "$(of distillation-dpo 8)" "$(of distillation-dpo 8-coarse)" \
        "$(of distillation-dpo 4)" "$(of distillation-dpo 2)" "$(of distillation-dpo 1)"
    for run in "${students[@]:1}"; do side_by_side score "$data" "$(of "$run" 8)"; done
done
all_done
for table in 1 3 4 5 6 7 8; do
    for scores in "$OUT"/scores/*; do densescan results paper "$table" "$scores"; done
done
