#!/usr/bin/env bash
# The paper from end to end at a size for two processor cores: simulated streets, teacher, refiner and its second stage,
# the teacher fine-tuned by Diffusion-DPO, students by score distillation and by Distillation-DPO, scores, pictures. It is
# there to see every stage work; its scenes are poor (a quarter of the published width, minutes of training).
#
#     bash runs/tiny.sh                                # docs/training.md has the hours it took
#     SCAN=000123.bin OUT=runs/tiny bash runs/tiny.sh  # completes a scan of yours at the end
#     ROWS=all bash runs/tiny.sh                       # a student for every row of Tables 1 to 8
#
# The same command goes on where an interrupted one stopped. Needs `pip install densescan` and about 1.5 GB of disk.
set -euo pipefail

OUT=${OUT:-runs/tiny}
ROWS=${ROWS:-table-1-distillation-dpo-refined table-5-distillation-dpo-tuned-teacher table-8-score-distillation}
SCAN=${SCAN:-} # empty: a simulated scan that no stage has seen

mkdir -p "$OUT"
read -ra rows <<<"$ROWS"
if [[ $ROWS == all ]]; then rows=(); fi
densescan recipes commands "${rows[@]}" --size tiny --out "$OUT" >"$OUT/commands.sh"
bash -euo pipefail -x "$OUT/commands.sh"

students=("$OUT"/models/*)
held_out=$OUT/data/held-out
if [[ -z $SCAN ]]; then
    scans=("$held_out"/sequences/*/velodyne/*.bin)
    SCAN=${scans[0]}
fi
densescan results sheet "$held_out" bare jitter:0.1 "${students[@]}" -o "$OUT/sheet.png"
densescan complete "$SCAN" --model "$OUT/models/distillation-dpo" -o "$OUT/scene.ply" --picture "$OUT/scene.png"
densescan results table "$OUT"/scores/* | tee "$OUT/scores.md"
