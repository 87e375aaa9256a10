"""The pipeline: four stage scripts, and one package per concern behind them."""

from stages.common.cli import handle_ctrl_c

handle_ctrl_c()
