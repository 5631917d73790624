/* A picture of benchmark results, drawn by gnuplot.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_PLOT_H
#define SPLITKV_TOOL_PLOT_H

#include <stddef.h>

typedef struct plot_bar {
  const char *name;
  double roof_fraction;
  double time; /* seconds */
  int is_compute_bound;
} plot_bar;

/* Is gnuplot there? Returns TOOL_OK, or the status of the error line it printed. To be asked before
 * the long work. */
int plot_is_possible(const char *path);

/* Replaces the file by an SVG of bars whose axis ends at the roof, 1. Returns as above. */
int plot_bars(const char *path, const char *title, const plot_bar *bars, size_t n_bars);

#endif
