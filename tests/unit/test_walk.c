/* The pieces of a plan: they cover the line once and in order, number their slots along it, and
 * agree with what the plan says about its tasks in closed form. Its bundles: they are made of the
 * same pieces in the same order, and as wide as they should be. Where AUTO spares a cut, and how
 * many tasks share a merge.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "rng.h"

#include <stdlib.h>
#include <string.h>

#include "../../src/bundle.h"

enum { MAX_REQUESTS = 12, N_PLANS = 4000 };

static const splitkv_split_policy policies[] = {SPLITKV_SPLIT_AUTO, SPLITKV_SPLIT_FIXED_SIZE,
                                                SPLITKV_SPLIT_FIXED_COUNT, SPLITKV_SPLIT_NONE};

static splitkv_plan *random_plan(rng *r, splitkv_problem *problem, int64_t *kv_lens,
                                 int64_t *q_offsets) {
  splitkv_problem_init(problem);
  problem->n_heads_kv = rng_range(r, 1, rng_one_in(r, 3) ? 20 : 4);
  problem->n_heads_q = problem->n_heads_kv * rng_range(r, 1, 40);
  problem->head_dim = problem->head_dim_v = rng_range(r, 1, 140);
  problem->page_size_tokens = 16;
  problem->table_width = 400;
  problem->split_policy = policies[rng_range(r, 0, 3)];
  if (problem->split_policy == SPLITKV_SPLIT_FIXED_SIZE)
    problem->split_value = rng_range(r, 1, 900);
  if (problem->split_policy == SPLITKV_SPLIT_FIXED_COUNT)
    problem->split_value = rng_range(r, 1, 30);
  if (rng_range(r, 0, 2) == 0) problem->window_tokens = rng_range(r, 1, 5000);

  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = rng_range(r, 0, MAX_REQUESTS);
  batch.n_workers = rng_range(r, 1, rng_one_in(r, 3) ? 8 : 40);
  batch.kv_lens = kv_lens;
  batch.kv_lens_type = SPLITKV_I64;
  static const int64_t around[] = {0, 1, 63, 64, 65, 127, 128, 129, 1023, 1024, 6400};
  for (int64_t i = 0; i < batch.n_requests; ++i) {
    kv_lens[i] = rng_range(r, 0, 1) ? around[rng_range(r, 0, 10)] : rng_range(r, 0, 6400);
  }
  if (rng_range(r, 0, 1) == 0) { /* query rows: none, one, a few, chunks */
    if (rng_range(r, 0, 1) == 0) problem->flags |= SPLITKV_FLAG_CAUSAL;
    static const int64_t most[] = {1, 3, 20, 300};
    q_offsets[0] = 0;
    for (int64_t i = 0; i < batch.n_requests; ++i)
      q_offsets[i + 1] = q_offsets[i] + rng_range(r, 0, most[rng_range(r, 0, 3)]);
    batch.q_offsets = q_offsets;
    batch.q_offsets_type = SPLITKV_I64;
  }
  splitkv_plan *plan = NULL;
  splitkv_error error;
  CHECK_MSG(splitkv_plan_create(problem, &batch, NULL, &plan, &error) == SPLITKV_OK, "%s",
            error.message);
  return plan;
}

/* A block holds the tokens between the first and the last that some row of it attends to. */
static int64_t check_block(const splitkv_plan *plan, const spl_block *block) {
  const splitkv_problem *p = &plan->shape.problem;
  const int64_t kv_len = plan->kv_lens[block->request],
                end_row = plan->q_offsets[block->request + 1];
  int64_t first = kv_len, end = 0;
  for (int64_t row = block->row; row < block->row + block->n_rows; ++row) {
    const int64_t position = kv_len - end_row + row;
    int64_t from = 0, to = kv_len;
    if (p->window_tokens > 0 && position - p->window_tokens + 1 > from)
      from = position - p->window_tokens + 1;
    if ((p->flags & SPLITKV_FLAG_CAUSAL) && position + 1 < to) to = position + 1;
    if (from >= to) continue;
    first = from < first ? from : first;
    end = to > end ? to : end;
  }
  if (end == 0) first = 0;
  CHECK(block->first == first && block->end == end);
  return end - first;
}

static int64_t n_level_cuts; /* through all KV heads at one token, of all plans */

/* Walks one task; *at is where the line has been covered to. */
static void check_task(const splitkv_plan *plan, int64_t task, spl_place *at, int64_t *next_slot,
                       splitkv_task_info *seen) {
  spl_walk walk = spl_walk_task(plan, task);
  spl_piece piece;
  int64_t level_end = 0;
  while (spl_walk_next(&walk, &piece)) {
    const spl_block *block = &plan->blocks[piece.block];
    const int64_t length = check_block(plan, block);
    CHECK(spl_attended(plan, piece.block) == length);
    CHECK(piece.block == at->block && piece.head == at->head && piece.first == at->token);
    CHECK(piece.end <= length && (piece.end > piece.first || length == 0));
    const bool whole = piece.first == 0 && piece.end == length;
    CHECK(whole ? piece.slot == -1 : piece.slot == *next_slot);
    *next_slot += whole ? 0 : block->n_rows;
    seen->kv_tokens += piece.end - piece.first;
    seen->n_pieces += length > 0;
    if (spl_is_level(plan, piece.block)) { /* all heads, then the tokens behind theirs */
      CHECK(at->head == 0 || piece.end == level_end);
      level_end = piece.end;
      n_level_cuts += at->head == 0 && piece.end < length;
      if (++at->head < plan->shape.problem.n_heads_kv) continue;
      at->head = 0;
    }
    at->token = piece.end;
    if (piece.end < length) continue;
    at->token = 0;
    if (!spl_is_level(plan, piece.block) && ++at->head < plan->shape.problem.n_heads_kv) continue;
    at->head = 0;
    at->block++;
  }
}

/* The pieces of a bundle are those that the walk gives, of neighbouring heads of one request, on
 * one grid of tiles, and leave no gap between first and end. */
static void check_bundle(const spl_bundle *b, spl_walk *walk) {
  int64_t first = b->pieces[0].first, end = b->pieces[0].end;
  for (int64_t i = 0; i < b->n; i++) {
    const spl_piece *piece = &b->pieces[i];
    spl_piece alone;
    CHECK(spl_walk_next(walk, &alone));
    CHECK(alone.block == piece->block && alone.head == piece->head && alone.first == piece->first &&
          alone.end == piece->end && alone.slot == piece->slot);
    CHECK(piece->block == b->pieces[0].block && piece->head == b->pieces[0].head + i);
    CHECK((piece->first - b->first) % SPL_TILE_TOKENS == 0 && piece->first >= b->first);
    CHECK(i == 0 || piece->end == piece->first || (piece->first < end && piece->end > first));
    first = piece->first < first ? piece->first : first;
    end = piece->end > end ? piece->end : end;
  }
  CHECK(b->first == first && b->end == end);
}

/* A task has the scratch that its pieces need: on the stack at least, in the workspace exactly,
 * rows and then sums, behind that of the task before, which ends at *at. */
static void check_scratch(const splitkv_plan *plan, int64_t task, const spl_scratch *needs,
                          int64_t *at) {
  const bool on_stack = plan->workspace.regions[SPL_SCRATCH].bytes == 0;
  const int64_t number = plan->tasks[task].scratch_kind;
  CHECK(number >= 0 && number < (on_stack ? 1 : plan->n_scratch_kinds));
  const spl_scratch_kind *kind = &plan->scratch_kinds[number];
  const spl_scratch *has = &kind->needs;
  CHECK(has->n_groups >= needs->n_groups && has->n_groups <= plan->limit.heads);
  for (int64_t i = 0; i < needs->n_groups; i++) {
    CHECK(needs->rows[i] <= has->rows[i] && needs->folding_rows[i] <= has->folding_rows[i]);
  }
  int64_t row_bytes = 0, sum_bytes = 0, needed_rows = 0, needed_sums = 0;
  CHECK(spl_scratch_bytes(&plan->shape, has, &row_bytes, &sum_bytes));
  CHECK(spl_scratch_bytes(&plan->shape, needs, &needed_rows, &needed_sums));
  CHECK(row_bytes >= needed_rows && sum_bytes >= needed_sums);
  if (on_stack) {
    CHECK(kind->row_bytes == row_bytes && plan->stack_bytes <= SPL_STACK_BYTES);
    CHECK(row_bytes + sum_bytes <= plan->stack_bytes);
    return;
  }
  CHECK(row_bytes == needed_rows && sum_bytes == needed_sums);
  CHECK(row_bytes % SPLITKV_ALIGNMENT == 0 && sum_bytes % SPLITKV_ALIGNMENT == 0);
  CHECK(kind->row_bytes == row_bytes && kind->sum_bytes == sum_bytes);
  CHECK(plan->tasks[task].scratch == *at);
  *at += row_bytes + sum_bytes;
}

/* Returns the pieces that are walked beside another one, and what the task needs of scratch. */
static int64_t check_bundles(const splitkv_plan *plan, int64_t task, spl_scratch *needs) {
  spl_walk walk = spl_walk_task(plan, task);
  spl_bundle_walk bundles = spl_bundle_begin(&walk);
  spl_bundle b, last = {.n = 0};
  int64_t beside = 0;
  while (spl_bundle_next(&bundles, &b)) {
    CHECK(b.n >= 1 && b.n <= plan->limit.heads);
    check_bundle(&b, &walk);
    for (int64_t i = 0; i < b.n; i++)
      spl_scratch_add(&plan->shape, needs, i, plan->blocks[b.pieces[i].block].n_rows,
                      b.pieces[i].end - b.pieces[i].first);
    /* Even sizes: where one bundle follows another in a request without cuts, it is no wider. */
    if (last.n > 0 && last.pieces[0].block == b.pieces[0].block && last.first == b.first &&
        last.end == b.end) {
      CHECK(b.n <= last.n && b.n + 1 >= last.n);
    }
    beside += b.n > 1 ? b.n : 0;
    last = b;
  }
  spl_piece piece;
  CHECK(b.n == 0 && !spl_walk_next(&walk, &piece));
  return beside;
}

static int64_t n_beside;     /* pieces in bundles of two or more, of all plans */
static int64_t n_wide_apart; /* tasks that walk bundles and have their scratch in the workspace */

static void check_plan(const splitkv_plan *plan) {
  spl_place at = {0, 0, 0};
  int64_t next_slot = 0, n_splits = 0, scratch_end = 0;
  for (int64_t t = 0; t < plan->n_tasks; ++t) {
    splitkv_task_info seen = {.struct_size = sizeof seen}, said = {.struct_size = sizeof said};
    check_task(plan, t, &at, &next_slot, &seen);
    spl_scratch needs = {0};
    n_beside += check_bundles(plan, t, &needs);
    check_scratch(plan, t, &needs, &scratch_end);
    n_wide_apart += plan->stack_bytes == 0 && needs.n_groups > 1;
    CHECK(splitkv_plan_get_task(plan, t, &said, NULL) == SPLITKV_OK);
    CHECK_MSG(said.kv_tokens == seen.kv_tokens && said.n_pieces == seen.n_pieces,
              "task %lld: said %lld tokens in %lld pieces, has %lld in %lld", (long long)t,
              (long long)said.kv_tokens, (long long)said.n_pieces, (long long)seen.kv_tokens,
              (long long)seen.n_pieces);
    n_splits += seen.n_pieces;
  }
  CHECK(at.block == plan->n_blocks && at.head == 0 && at.token == 0);
  CHECK(next_slot == plan->n_slots);
  if (plan->workspace.regions[SPL_SCRATCH].bytes > 0)
    CHECK(scratch_end == plan->workspace.regions[SPL_SCRATCH].bytes);
  int64_t in_merges = 0;
  for (int64_t m = 0; m < plan->n_merge_runs; ++m) {
    CHECK(plan->merges[m].slot == in_merges && plan->merges[m].n_splits > 1);
    in_merges += plan->merges[m].n_heads * plan->merges[m].n_splits *
                 plan->blocks[plan->merges[m].block].n_rows;
  }
  CHECK(in_merges == plan->n_slots);
  splitkv_plan_info info = {.struct_size = sizeof info};
  CHECK(splitkv_plan_get_info(plan, &info, NULL) == SPLITKV_OK);
  CHECK(info.n_splits == n_splits);
}

/* Where one item is cut, by looking at every border: the nearest in cost, the later one of two. */
static int64_t nearest_border(const splitkv_problem *problem, int64_t kv_len, int64_t cost) {
  int64_t token = 0, piece = 0, best = 0, best_distance = cost;
  while (token < kv_len) {
    token = spl_piece_end(problem, kv_len, token);
    const int64_t border = token + ++piece * SPL_PIECE_COST;
    const int64_t distance = border > cost ? border - cost : cost - border;
    if (distance <= best_distance) best = token;
    if (distance <= best_distance) best_distance = distance;
  }
  return best;
}

/* What is found by division agrees with what is found by counting. */
static void check_cuts(rng *r) {
  splitkv_problem problem;
  splitkv_problem_init(&problem);
  problem.n_heads_kv = 1;
  problem.split_policy = policies[rng_range(r, 1, 3)];
  problem.split_value = problem.split_policy == SPLITKV_SPLIT_NONE ? 0 : rng_range(r, 1, 90);
  const int64_t kv_len = rng_range(r, 1, 400);
  int64_t first = 0, piece = 0, item = 0;
  for (int64_t token = 0; token < kv_len; token++) {
    const int64_t end = spl_piece_end(&problem, kv_len, first);
    CHECK(end > first && end <= kv_len);
    CHECK(spl_piece_at(&problem, kv_len, token) == piece);
    CHECK(spl_piece_end(&problem, kv_len, token) == end);
    if (token + 1 < end) continue;
    first = end;
    piece++;
  }
  CHECK(piece == spl_n_pieces(&problem, kv_len));
  CHECK(spl_block_cost(&problem, kv_len, spl_n_pieces(&problem, kv_len), 1, &item));
  for (int64_t cost = 0; cost < item; cost++) {
    int64_t n_before = -1;
    spl_place cut;
    spl_cut(&problem, 5, kv_len, cost, 0, &cut, &n_before);
    const int64_t token = cut.block == 6 ? kv_len : cut.token;
    CHECK(n_before == (cut.block == 6 ? 0 : spl_piece_at(&problem, kv_len, token)));
    CHECK_MSG(token == nearest_border(&problem, kv_len, cost), "policy %d:%lld, %lld of %lld: %lld",
              (int)problem.split_policy, (long long)problem.split_value, (long long)cost,
              (long long)kv_len, (long long)token);
  }
}

static splitkv_plan *plan_of(const splitkv_problem *problem, int64_t n_requests,
                             const int64_t *kv_lens, int64_t n_workers) {
  splitkv_batch batch;
  splitkv_batch_init(&batch);
  batch.n_requests = n_requests;
  batch.n_workers = n_workers;
  batch.kv_lens = kv_lens;
  batch.kv_lens_type = SPLITKV_I64;
  splitkv_plan *plan = NULL;
  splitkv_error error;
  CHECK_MSG(splitkv_plan_create(problem, &batch, NULL, &plan, &error) == SPLITKV_OK, "%s",
            error.message);
  return plan;
}

static splitkv_problem problem_of(int64_t n_heads_q, int64_t n_heads_kv, splitkv_layout layout) {
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = n_heads_q;
  p.n_heads_kv = n_heads_kv;
  p.head_dim = p.head_dim_v = 128;
  p.dtype_q = p.dtype_kv = p.dtype_out = SPLITKV_F16;
  p.page_size_tokens = 16;
  p.table_width = 100000;
  p.layout = layout;
  return p;
}

/* Two requests for two workers: AUTO cuts between them where the even cut lies within 1/128 of a
 * task, and inside the longer one where it lies further off. Both ways of being near are tried. */
static void check_slack(void) {
  const splitkv_problem problem = problem_of(4, 1, SPLITKV_LAYOUT_HND);
  static const struct {
    int64_t shift; /* of the border from the even cut */
    bool is_spared;
  } cases[] = {{0, true}, {500, true}, {-500, true}, {2000, false}, {-2000, false}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const int64_t kv_lens[] = {100000 + cases[i].shift, 100000 - cases[i].shift};
    splitkv_plan *plan = plan_of(&problem, 2, kv_lens, 2);
    if (plan == NULL) return;
    const spl_place *cut = &plan->tasks[1].start;
    const bool is_spared = cut->block == 1 && cut->token == 0;
    CHECK_MSG(plan->n_tasks == 2 && is_spared == cases[i].is_spared &&
                  plan->n_slots == (is_spared ? 0 : 2),
              "shifted by %lld: cut at request %lld, token %lld, %lld slots",
              (long long)cases[i].shift, (long long)cut->block, (long long)cut->token,
              (long long)plan->n_slots);
    splitkv_plan_destroy(plan);
  }
}

/* Many sums are merged by as many tasks as there are workers, few by one. */
static void check_merge_tasks(void) {
  splitkv_problem problem = problem_of(32, 8, SPLITKV_LAYOUT_HND);
  problem.split_policy = SPLITKV_SPLIT_FIXED_SIZE;
  problem.split_value = 64;
  static const struct { int64_t kv_len, n_merge_tasks; } cases[] = {{64000, 8}, {128, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    splitkv_plan *plan = plan_of(&problem, 1, &cases[i].kv_len, 8);
    if (plan == NULL) return;
    CHECK_MSG(plan->n_merge_tasks == cases[i].n_merge_tasks, "%lld slots: %lld tasks, not %lld",
              (long long)plan->n_slots, (long long)plan->n_merge_tasks,
              (long long)cases[i].n_merge_tasks);
    splitkv_plan_destroy(plan);
  }
}

/* Eight heads of f16 go side by side where their rows do, and one by one where they do not. */
static void check_widths(void) {
  static const struct {
    splitkv_layout layout;
    int64_t width;
  } cases[] = {{SPLITKV_LAYOUT_NHD, 8}, {SPLITKV_LAYOUT_HND, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const splitkv_problem problem = problem_of(32, 8, cases[i].layout);
    const int64_t kv_len = 1000;
    splitkv_plan *plan = plan_of(&problem, 1, &kv_len, 1);
    if (plan == NULL) return;
    CHECK(plan->limit.heads == cases[i].width && plan->n_tasks == 1);
    const spl_walk walk = spl_walk_task(plan, 0);
    spl_bundle_walk bundles = spl_bundle_begin(&walk);
    spl_bundle b;
    int64_t n_bundles = 0;
    for (; spl_bundle_next(&bundles, &b); n_bundles++)
      CHECK_MSG(b.n == cases[i].width, "layout %d: a bundle of %lld", (int)cases[i].layout,
                (long long)b.n);
    CHECK(n_bundles == 8 / cases[i].width);
    splitkv_plan_destroy(plan);
  }
}

/* Level blocks whose heads go one by one all the same: Q of many heads lies twice. A task that
 * begins inside has no more scratch than its tokens need. */
static void check_narrow(void) {
  splitkv_problem problem = problem_of(72, 2, SPLITKV_LAYOUT_NHD);
  problem.head_dim = 256;
  problem.scale = 0.0625;
  for (int64_t kv_len = 200; kv_len <= 1600; kv_len += 100) {
    const int64_t kv_lens[] = {kv_len, 100, 100, 100, 100};
    for (int64_t n_workers = 2; n_workers <= 4; n_workers++) {
      splitkv_plan *plan = plan_of(&problem, 5, kv_lens, n_workers);
      if (plan == NULL) return;
      check_plan(plan);
      splitkv_plan_destroy(plan);
    }
  }
}

static int64_t n_sets_level; /* plans of check_sets that are cut level */
static int64_t n_sets_apart; /* and those whose bundles differ between two CPUs */

/* Where AUTO cuts, which bits depend on, goes by the problem alone, not by what a CPU can do. */
static void check_sets(rng *r) {
  static const splitkv_isa isas[] = {SPLITKV_ISA_SCALAR, SPLITKV_ISA_AVX2, SPLITKV_ISA_AVX512};
  static const int64_t dims[] = {16, 64, 80, 128, 256};
  const int64_t n_heads_kv = rng_range(r, 1, 33);
  splitkv_problem problem =
      problem_of(n_heads_kv * rng_range(r, 1, 9), n_heads_kv, SPLITKV_LAYOUT_NHD);
  problem.head_dim = problem.head_dim_v = dims[rng_range(r, 0, 4)];
  problem.dtype_kv = (splitkv_dtype)rng_range(r, SPLITKV_F32, SPLITKV_BF16);
  const int64_t kv_lens[] = {rng_range(r, 0, 6400), rng_range(r, 0, 6400)};
  const int64_t n_requests = rng_range(r, 1, 2), n_workers = rng_range(r, 2, 9);
  splitkv_plan *first = NULL;
  for (int i = 0; i < 3; ++i) {
    problem.isa = isas[i];
    if (splitkv_describe(&problem, NULL) != SPLITKV_OK) continue; /* not on this machine */
    splitkv_plan *plan = plan_of(&problem, n_requests, kv_lens, n_workers);
    if (plan == NULL) break;
    if (first == NULL) {
      first = plan;
      n_sets_level += plan->cuts_level;
      continue;
    }
    CHECK(plan->n_tasks == first->n_tasks && plan->n_slots == first->n_slots);
    for (int64_t t = 0; t < plan->n_tasks; ++t)
      CHECK(memcmp(&plan->tasks[t].start, &first->tasks[t].start, sizeof(spl_place)) == 0);
    n_sets_apart += plan->limit.heads != first->limit.heads;
    splitkv_plan_destroy(plan);
  }
  splitkv_plan_destroy(first);
}

int main(void) {
  check_slack();
  check_merge_tasks();
  check_widths();
  check_narrow();
  rng r = {77};
  for (int i = 0; i < N_PLANS && check_failures() == 0; ++i) {
    check_cuts(&r);
    check_sets(&r);
  }
  CHECK(n_sets_level > N_PLANS / 4);
  splitkv_problem widest = problem_of(1, 1, SPLITKV_LAYOUT_NHD);
  widest.isa = SPLITKV_ISA_AVX512;
  CHECK(n_sets_apart > N_PLANS / 20 || splitkv_describe(&widest, NULL) != SPLITKV_OK);
  for (int i = 0; i < N_PLANS; ++i) {
    splitkv_problem problem;
    int64_t kv_lens[MAX_REQUESTS], q_offsets[MAX_REQUESTS + 1];
    splitkv_plan *plan = random_plan(&r, &problem, kv_lens, q_offsets);
    if (plan != NULL) check_plan(plan);
    splitkv_plan_destroy(plan);
    if (check_failures() > 0) break;
  }
  CHECK(n_beside > N_PLANS && n_wide_apart > N_PLANS && n_level_cuts > N_PLANS / 4);
  return check_report("walk");
}
