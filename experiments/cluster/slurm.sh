#!/bin/bash
# Two nodes with eight devices each: sbatch experiments/cluster/slurm.sh experiments/fine_tune/pe_av.yaml [further options of peav fit]
# Lightning reads ranks and addresses from SLURM; a run that was requeued goes on from its last checkpoint.
#SBATCH --job-name=peav
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=SIGUSR1@120
#SBATCH --requeue
set -eu
experiment=$1
shift
run=${RUN:-runs/$SLURM_JOB_NAME}
resume=()
if [ -f "$run/checkpoints/last.ckpt" ]; then resume=(--ckpt_path "$run/checkpoints/last.ckpt"); fi
export OMP_NUM_THREADS=1
srun peav fit --config "$experiment" --config experiments/cluster/multi_node.yaml \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "${SLURM_NTASKS_PER_NODE%%(*}" \
  --trainer.default_root_dir "$run" "${resume[@]}" "$@"
