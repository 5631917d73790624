/* SPDX-License-Identifier: Apache-2.0 */
#include "ascend_picture.h"

#include "table.h"
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In user units. Lanes lie between LEFT and LEFT + PLOT_WIDTH, from TOP on. */
enum {
  WIDTH = 1280,
  LEFT = 70,
  PLOT_WIDTH = 1040,
  TOP = 112,
  MAX_LANES_HEIGHT = 640,
  LEAST_LANE = 7,
  MOST_LANE = 28,
  MAX_LANES = 90,  /* more would be thinner than LEAST_LANE */
  MAX_BLOCKS = 320 /* in a lane: blocks of about three units */
};

#define FORMER_COLOUR "#4477aa"
#define TAIL_COLOUR "#ee8866"
#define IDLE_COLOUR "#eeeeee"

/* Tasks of one lane that are drawn as one block. */
typedef struct block {
  double work;
  double split_work; /* sum of split x work */
  int64_t n_tasks;
  int is_tail;
} block;

typedef struct lane {
  block *blocks; /* [MAX_BLOCKS + 2] */
  size_t n_blocks;
  int64_t n_tasks;
} lane;

typedef struct picture {
  FILE *svg;
  const ascend_tiling *t;
  const ascend_work *w;
  lane lanes[MAX_LANES];
  int64_t n_lanes;
  int64_t tasks_a_block; /* 1: every task is seen */
  double lane_height, scale, bottom;
} picture;

static int has_splits(const picture *p) {
  return (p->t->info.key & ASCEND_KEY_SPLIT) != 0;
}

/* ── blocks ─────────────────────────────────────────────────────────────────────────────────── */

static void count_task(void *context, const ascend_task *task) {
  picture *p = context;
  if (task->core < p->n_lanes) {
    p->lanes[task->core].n_tasks++;
  }
}

static void add_task(void *context, const ascend_task *task) {
  picture *p = context;
  if (task->core >= p->n_lanes) {
    return;
  }
  lane *l = &p->lanes[task->core];
  block *last = l->n_blocks ? &l->blocks[l->n_blocks - 1] : NULL;
  if (!last || last->n_tasks >= p->tasks_a_block || last->is_tail != task->is_tail) {
    last = &l->blocks[l->n_blocks++];
    *last = (block){.is_tail = task->is_tail};
  }
  double work = (double)task->n_tokens * (double)task->n_heads;
  last->work += work;
  last->split_work += work * (double)task->split;
  last->n_tasks++;
}

static int collect_blocks(picture *p, const tool_case *c) {
  int64_t most = 0;
  int status = ascend_walk(c, p->t, count_task, p);
  for (int64_t i = 0; i < p->n_lanes && !status; i++) {
    most = p->lanes[i].n_tasks > most ? p->lanes[i].n_tasks : most;
    p->lanes[i].blocks = calloc(MAX_BLOCKS + 2, sizeof *p->lanes[i].blocks);
    if (!p->lanes[i].blocks) {
      status = tool_unsupported("--svg: out of memory");
    }
  }
  p->tasks_a_block = most > MAX_BLOCKS ? (most + MAX_BLOCKS - 1) / MAX_BLOCKS : 1;
  return status ? status : ascend_walk(c, p->t, add_task, p);
}

/* ── colours ────────────────────────────────────────────────────────────────────────────────── */

/* From dark blue to yellow, even in lightness. `place` is 0 .. 1. */
static void ramp_colour(double place, char text[8]) {
  static const double stops[][3] = {
      {68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}};
  enum { LAST = sizeof stops / sizeof stops[0] - 1 };
  double at = place * LAST;
  int i = at >= LAST ? LAST - 1 : (int)at;
  int channels[3];
  for (int j = 0; j < 3; j++) {
    channels[j] = (int)(stops[i][j] + (at - i) * (stops[i + 1][j] - stops[i][j]) + 0.5);
  }
  snprintf(text, 8, "#%02x%02x%02x", (unsigned)channels[0] & 0xffu, (unsigned)channels[1] & 0xffu,
           (unsigned)channels[2] & 0xffu);
}

static double split_place(const picture *p, double split) {
  return p->t->info.n_splits > 1 ? split / (double)(p->t->info.n_splits - 1) : 0;
}

static void block_colour(const picture *p, const block *b, char text[8]) {
  if (!has_splits(p)) {
    snprintf(text, 8, "%s", b->is_tail ? TAIL_COLOUR : FORMER_COLOUR);
    return;
  }
  ramp_colour(split_place(p, b->work > 0 ? b->split_work / b->work : 0), text);
}

/* ── parts ──────────────────────────────────────────────────────────────────────────────────── */

static void text_at(FILE *svg, double x, double y, const char *style, const char *text) {
  fprintf(svg, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, style);
  for (; *text; text++) {
    const char *entity = *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : *text == '&' ? "&amp;" : 0;
    if (entity) {
      fputs(entity, svg);
    } else {
      fputc(*text, svg);
    }
  }
  fputs("</text>\n", svg);
}

static void rectangle(FILE *svg, double x, double y, double width, double height,
                      const char *colour) {
  fprintf(svg, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"/>\n", x, y,
          width, height, colour);
}

static void draw_lane(const picture *p, int64_t core) {
  const lane *l = &p->lanes[core];
  double y = TOP + (double)core * p->lane_height, height = p->lane_height * 0.82, x = LEFT;
  char text[80];
  rectangle(p->svg, x, y, p->w->most * p->scale, height, IDLE_COLOUR);
  for (size_t i = 0; i < l->n_blocks; i++) {
    double width = l->blocks[i].work * p->scale;
    double gap = width > 6 ? 1 : width > 2.5 ? 0.4 : 0;
    char colour[8];
    block_colour(p, &l->blocks[i], colour);
    rectangle(p->svg, x, y, width - gap, height, colour);
    x += width;
  }
  int every = p->lane_height >= 11 ? 1 : p->lane_height >= 8 ? 2 : 5;
  if (core % every == 0) {
    snprintf(text, sizeof text, "%lld", (long long)core);
    text_at(p->svg, LEFT - 8, y + height / 2 + 4, "text-anchor=\"end\" class=\"small\"", text);
  }
  if (p->lane_height >= 11) {
    snprintf(text, sizeof text, "%.0f %%",
             p->w->most > 0 ? 100 * p->w->core_work[core] / p->w->most : 0);
    text_at(p->svg, LEFT + PLOT_WIDTH + 52, y + height / 2 + 4,
            "text-anchor=\"end\" class=\"small grey\"", text);
  }
}

static void count_label(double n, const char *before, char *text, size_t capacity) {
  char number[32];
  table_count_text((uint64_t)(n + 0.5), number, sizeof number);
  snprintf(text, capacity, "%s%s", before, number);
}

/* 1, 2 or 5 times a power of ten, of which about eight make `most`. */
static double tick_step(double most) {
  double power = pow(10, floor(log10(most / 8)));
  double factor = most / 8 / power;
  return power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10);
}

static void draw_axis(const picture *p) {
  FILE *svg = p->svg;
  char text[64];
  double step = tick_step(p->w->most);
  for (double tick = 0; tick <= p->w->most && step > 0; tick += step) {
    double x = LEFT + tick * p->scale;
    fprintf(svg, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#888\"/>\n", x, x,
            p->bottom, p->bottom + 5);
    count_label(tick, "", text, sizeof text);
    text_at(svg, x, p->bottom + 20, "text-anchor=\"middle\" class=\"small\"", text);
  }
  fprintf(svg, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#888\"/>\n", LEFT,
          LEFT + PLOT_WIDTH, p->bottom, p->bottom);
  text_at(svg, LEFT + PLOT_WIDTH / 2.0, p->bottom + 42, "text-anchor=\"middle\"",
          "work of a core: tokens × heads");
  text_at(svg, LEFT - 8, TOP - 8, "text-anchor=\"end\" class=\"bold\"", "core");
}

/* The mean ends before its line and the most begins after its own, so that they never meet. */
static void draw_marks(const picture *p) {
  double mean = p->w->total / (double)p->t->target.n_cores;
  const struct {
    double at;
    const char *label, *style, *colour;
    double shift;
  } marks[] = {
      {mean, "mean of all cores ", "text-anchor=\"end\" class=\"small\"", "#222", -4},
      {p->w->most, "busiest core ", "text-anchor=\"start\" class=\"small\"", "#bb3333", 4}};
  for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
    double x = LEFT + marks[i].at * p->scale;
    char text[64];
    fprintf(p->svg,
            "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%.1f\" stroke=\"%s\" "
            "stroke-dasharray=\"4 3\"/>\n",
            x, x, TOP - 20, p->bottom, marks[i].colour);
    count_label(marks[i].at, marks[i].label, text, sizeof text);
    int has_room = i > 0 || x > LEFT + 170;
    text_at(p->svg, has_room ? x + marks[i].shift : x + 4, TOP - 9,
            has_room ? marks[i].style : marks[1].style, text);
  }
}

static double key_entry(FILE *svg, double x, double y, const char *colour, const char *text) {
  rectangle(svg, x, y, 16, 12, colour);
  text_at(svg, x + 22, y + 11, "class=\"small\"", text);
  return x + 40 + 6.6 * (double)strlen(text);
}

static double key_of_splits(const picture *p, double x, double y) {
  enum { CELLS_WIDTH = 330 };
  int64_t n = p->t->info.n_splits;
  char text[64];
  text_at(p->svg, x, y + 11, "class=\"small\"", "split 0");
  x += 48;
  for (int64_t i = 0; i < n; i++) {
    char colour[8];
    double cell = (double)CELLS_WIDTH / (double)n;
    ramp_colour(split_place(p, (double)i), colour);
    rectangle(p->svg, x + (double)i * cell, y, cell + 0.3, 12, colour);
  }
  snprintf(text, sizeof text, "split %lld", (long long)n - 1);
  text_at(p->svg, x + CELLS_WIDTH + 8, y + 11, "class=\"small\"", text);
  return x + CELLS_WIDTH + 84;
}

static void draw_key(const picture *p) {
  double x = LEFT, y = p->bottom + 58;
  char text[96];
  if (has_splits(p)) {
    x = key_of_splits(p, x, y);
  } else {
    x = key_entry(p->svg, x, y, FORMER_COLOUR, "all tokens of a request");
    if (p->t->info.n_requests_tail > 0) {
      x = key_entry(p->svg, x, y, TAIL_COLOUR, "the longest requests, in smaller tasks");
    }
  }
  x = key_entry(p->svg, x, y, IDLE_COLOUR, "nothing left to do");
  if (p->tasks_a_block > 1) {
    snprintf(text, sizeof text, "a block is up to %lld tasks%s", (long long)p->tasks_a_block,
             has_splits(p) ? ", its colour their mean" : "");
    text_at(p->svg, x, y + 11, "class=\"small grey\"", text);
  } else {
    text_at(p->svg, x, y + 11, "class=\"small grey\"", "a block is a task");
  }
}

static void draw_title(const picture *p, const selected_case *entry) {
  const splitkv_ascend_info *info = &p->t->info;
  char title[200], tasks[32], tokens[32], splits[64] = "no split";
  table_count_text((uint64_t)p->w->n_tasks, tasks, sizeof tasks);
  table_count_text((uint64_t)info->split_tokens, tokens, sizeof tokens);
  if (has_splits(p)) {
    snprintf(splits, sizeof splits, "%lld splits of %s tokens", (long long)info->n_splits, tokens);
  }
  snprintf(title, sizeof title, "Rule %s: %s, %s tasks on %lld cores, balance %.1f %%",
           problem_rule_name(p->t->target.rule), splits, tasks, (long long)p->t->target.n_cores,
           100 * p->w->balance);
  text_at(p->svg, LEFT, 34, "class=\"title\"", title);
  snprintf(title, sizeof title, "%.150s%s", entry->name, strlen(entry->name) > 150 ? "..." : "");
  text_at(p->svg, LEFT, 58, "class=\"small grey\"", title);
  if (p->n_lanes < p->t->target.n_cores) {
    snprintf(title, sizeof title, "the first %lld of %lld cores", (long long)p->n_lanes,
             (long long)p->t->target.n_cores);
    text_at(p->svg, WIDTH - 20, 34, "text-anchor=\"end\" class=\"small grey\"", title);
  }
}

static void draw(picture *p, const selected_case *entry) {
  p->lane_height = fmin(fmax((double)MAX_LANES_HEIGHT / (double)p->n_lanes, LEAST_LANE), MOST_LANE);
  p->scale = p->w->most > 0 ? PLOT_WIDTH / p->w->most : 0;
  p->bottom = TOP + (double)p->n_lanes * p->lane_height + 4;
  double height = p->bottom + 90;
  fprintf(p->svg,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" "
          "viewBox=\"0 0 %d %.0f\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n"
          "<style>.small{font-size:12px}.grey{fill:#666}.bold{font-weight:bold;font-size:12px}"
          ".title{font-size:19px;font-weight:bold}</style>\n",
          WIDTH, height, WIDTH, height);
  rectangle(p->svg, 0, 0, WIDTH, height, "white");
  draw_title(p, entry);
  for (int64_t core = 0; core < p->n_lanes; core++) {
    draw_lane(p, core);
  }
  draw_axis(p);
  if (p->w->most > 0) {
    draw_marks(p);
  }
  draw_key(p);
  fputs("</svg>\n", p->svg);
}

int ascend_draw(const char *path, const selected_case *entry, const tool_case *c,
                const ascend_tiling *t, const ascend_work *w) {
  char *text = NULL;
  size_t size = 0;
  picture p = {.t = t, .w = w};
  p.n_lanes = t->target.n_cores < MAX_LANES ? t->target.n_cores : MAX_LANES;
  int status = collect_blocks(&p, c);
  if (!status) {
    p.svg = open_memstream(&text, &size);
    status = p.svg ? TOOL_OK : tool_unsupported("--svg: out of memory");
  }
  if (!status) {
    draw(&p, entry);
    status = fclose(p.svg) ? tool_unsupported("--svg: out of memory") : TOOL_OK;
  }
  status = status ? status : tool_write_file(text, size, "--svg", path);
  for (int64_t i = 0; i < p.n_lanes; i++) {
    free(p.lanes[i].blocks);
  }
  free(text);
  return status;
}
