#!/usr/bin/env bash
# The paper as published: every row of Tables 1 to 8 but the rivals', on SemanticKITTI, and Table 2 on KITTI-360.
#
# Not run here. It needs GPUs with room for whole scenes (180,000 points, full width) and many days; how many of either
# is not known. What stands for what the paper leaves open is said in src/densescan/recipes/published.py.
#
#     DATA=/data/SemanticKITTI/dataset KITTI_360=/data/KITTI-360 GPUS=8 bash runs/paper.sh
#
# The same command goes on where an interrupted one stopped: each of its commands does. The same rows at a size for two
# cores: `densescan recipes commands --size small`. A single row: `densescan recipes show ROW`.
set -euo pipefail

DATA=${DATA:-SemanticKITTI/dataset} # folder that holds sequences/00 to 10, with labels
KITTI_360=${KITTI_360-KITTI-360}    # folder of KITTI-360; empty: leave Table 2 out
OUT=${OUT:-runs/paper}              # receives data, runs, models and scores
GPUS=${GPUS:-1}                     # of this machine; a run takes two at most, for the published batch is two scenes
EVERY=${EVERY:-1}                   # score one frame of so many; the protocol has all

training=(--data "$OUT/data/semantic-kitti" --sequences 00 01 02 03 04 05 06 07 09 10)
# stage, recipe, and the run of the teacher
students=(
    "distillation-dpo published teacher"
    "distillation-dpo published-lam-1.05 teacher"
    "distillation-dpo published-lam-1.2 teacher"
    "distillation-dpo published-lam-1.5 teacher"
    "distillation-dpo published-lam-2.0 teacher"
    "distillation-dpo published-jsd teacher"
    "distillation-dpo published-one-assistant teacher"
    "score-distillation published teacher"
    "distillation-dpo published-tuned-teacher diffusion-dpo"
)

run_of() { # STAGE RECIPE: the folder of a run
    echo "$1${2#published}"
}

train() { # STAGE RECIPE [OPTION...]: on all visible GPUs that its batch can use
    local stage=$1 recipe=$2 launcher=()
    shift 2
    if ((PROCESSES > 1)); then
        launcher=(torchrun --standalone --nproc-per-node "$PROCESSES" --no-python)
    fi
    "${launcher[@]}" densescan train "$stage" --recipe "$recipe" "$@" "${training[@]}" \
        --out "$OUT/runs/$(run_of "$stage" "$recipe")"
}

distil() { # GPU: every GPUS-th student, one after the other, on this GPU
    local i stage recipe teacher
    for ((i = $1; i < ${#students[@]}; i += GPUS)); do
        read -r stage recipe teacher <<<"${students[i]}"
        CUDA_VISIBLE_DEVICES=$1 PROCESSES=1 train "$stage" "$recipe" --teacher "$OUT/runs/$teacher/model"
    done
}

merge() { # RUN FIELD=VALUE...: a model with its refiner, and how it is sampled
    local run=$1
    shift
    densescan weights merge "$OUT/runs/$run/model" "$OUT/runs/refiner/model" -o "$OUT/models/$run" --completion "$@"
}

methods() { # RUN STEPS...: the methods of a model, refined; STEPS-coarse: before refinement
    local run=$1 steps
    shift
    for steps in "$@"; do
        echo "$run-$steps=$OUT/models/$run:steps=${steps/-coarse/:coarse}"
    done
}

PROCESSES=$((GPUS < 2 ? GPUS : 2))

# Data
densescan data prepare "$DATA" "$OUT/data/semantic-kitti" --sequences 00 01 02 03 04 05 06 07 09 10 08
if [[ -n $KITTI_360 ]]; then
    densescan data prepare "$KITTI_360" "$OUT/data/kitti-360" --sequences 2013_05_28_drive_0000_sync \
        --deskew --movers visibility
fi

# Training
train teacher published
train refiner published
train diffusion-dpo published --teacher "$OUT/runs/teacher/model"
trap 'trap - TERM; kill 0' INT TERM # what runs in the background does not hear Ctrl-C
workers=()
for ((gpu = 0; gpu < GPUS; gpu++)); do
    distil "$gpu" &
    workers+=($!)
done
for worker in "${workers[@]}"; do
    wait "$worker"
done
trap - INT TERM

# Models
merge teacher steps=50 guidance_scale=6.0
merge diffusion-dpo steps=50 guidance_scale=6.0
scored=()
for student in "${students[@]}"; do
    read -r stage recipe _ <<<"$student"
    run=$(run_of "$stage" "$recipe")
    merge "$run" steps=8 guidance_scale=3.5
    if [[ $run != distillation-dpo ]]; then
        scored+=("$(methods "$run" 8)")
    fi
done

# Scores
rivals=(bare jitter:0.1 jitter:0.2)
mapfile -t compared < <(methods teacher 50-coarse 50 && methods distillation-dpo 8-coarse 8)
mapfile -t fewer_steps < <(methods teacher 8-coarse 8 && methods distillation-dpo 4 2 1)
densescan evaluate "$OUT/data/semantic-kitti" "${rivals[@]}" "${compared[@]}" "${fewer_steps[@]}" \
    "$(methods diffusion-dpo 50)" "${scored[@]}" \
    --out "$OUT/scores/semantic-kitti" --sequences 08 --every "$EVERY" --published semantic-kitti
densescan results table "$OUT/scores/semantic-kitti" --published semantic-kitti --columns cd jsd_bev emd_released
if [[ -n $KITTI_360 ]]; then
    densescan evaluate "$OUT/data/kitti-360" "${rivals[@]}" "${compared[@]}" \
        --out "$OUT/scores/kitti-360" --every "$EVERY" --published kitti-360
    densescan results table "$OUT/scores/kitti-360" --published kitti-360 --columns cd jsd_bev emd_released
fi
