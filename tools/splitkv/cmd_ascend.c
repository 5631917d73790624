/* splitkv ascend: picks the command for the Ascend kernel.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ascend.h"
#include "commands.h"
#include "tool.h"

#include <stddef.h>
#include <string.h>

const char cmd_ascend_help[] =
    "The host side of the Ascend paged attention kernel: what it is told (tiling\n"
    "words), the memory that it needs, a model of it that runs here, and its launch.\n"
    "\n"
    "  plan PROBLEM       tiling and the bytes of the eight scratch buffers: exact,\n"
    "                     as the pull request allocated before and after its change,\n"
    "                     and the most for any batch as large\n"
    "  explain PROBLEM    the same in words: which way the rule goes and why, where\n"
    "                     memory is too small, what splits cost, the other rule\n"
    "  check [PROBLEM...] run the model with buffers of exactly these sizes, every\n"
    "                     access watched, and compare with the oracle\n"
    "  bench [PROBLEM...] time launches on a device and compare with the oracle\n"
    "  run                attention on your own tensors, on a device or by the model\n"
    "\n"
    "plan:\n"
    "  --words            the tiling words and nothing else, in one line\n"
    "  --unchecked        words also for what the kernel cannot do\n"
    "explain:\n"
    "  --svg FILE.svg     a picture: who works on what, a lane for each core\n"
    "check:\n"
    "  --sizes WHICH      exact, before or after: sizes of the scratch buffers\n"
    "  --offsets-times-splits   the offsets of o_core in the words times the number\n"
    "                     of splits, as a review of the pull request suggested\n"
    "  --mask-by-pointer  pass a mask of one byte, and apply it as the reference does\n"
    "  --keep-empty-rows  leave the rows of empty requests as the kernel leaves them\n"
    "check and bench:\n"
    "  --suite NAME       pr683 or ascend; both may be named\n"
    "  --json-file FILE   the JSON object to FILE, beside the table\n"
    "bench and run:\n"
    "  --kernel FILE.so   the kernel's library, such as pa_lib.so\n"
    "  --runtime FILE.so  libascendcl.so where left out, as the loader finds it\n"
    "  --device N         0 where left out\n"
    "bench:\n"
    "  --launches N       20 where left out; the time is their median\n"
    "run:\n"
    "  --model            the model on this CPU instead of --kernel\n"
    "  --q FILE.npy       [requests, query heads, d]: float16, or bfloat16 as uint16\n"
    "  --k FILE.npy       [pages, page size, KV heads, d]\n"
    "  --v FILE.npy       the same\n"
    "  --table FILE.npy   int32 or int64 page ids [requests, pages per request]\n"
    "  --kv-lens FILE.npy   int32 or int64 [requests]: tokens attended to\n"
    "  --tensors FILE.safetensors   tensors q, k, v, table and kv_lens; also\n"
    "                     --name-q NAME and the like, as in 'splitkv help run'\n"
    "  --bf16             uint16 .npy arrays hold bfloat16\n"
    "  --out FILE.npy     [requests, query heads, d]\n"
    "  --scale X          factor of q.k; 1/sqrt(d) where left out\n"
    "  --cores N          24 where left out\n"
    "  --rule RULE        guarded or pr683\n"
    "  --threads N        of the model\n"
    "all but plan --words:\n"
    "  --json             one JSON object instead\n"
    "\n"
    "  splitkv ascend explain b=256 hq=16 hkv=1 kv=8192 rule=pr683 --svg lanes.svg\n"
    "  splitkv ascend check --suite pr683 --suite ascend dtype=bf16\n"
    "\n";

static const struct {
  const char *name;
  int (*run)(int argc, char **argv);
} commands[] = {{"plan", ascend_plan},
                {"explain", ascend_explain},
                {"check", ascend_check},
                {"bench", ascend_bench},
                {"run", ascend_run}};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

int cmd_ascend(int argc, char **argv) {
  static const char list[] = "plan, explain, check, bench or run";
  const char *names[N_COMMANDS];
  if (argc < 1) {
    return tool_usage_error("ascend: needs a command: %s", list);
  }
  for (int i = 0; i < N_COMMANDS; i++) {
    names[i] = commands[i].name;
    if (strcmp(argv[0], names[i]) == 0) {
      return commands[i].run(argc - 1, argv + 1);
    }
  }
  const char *near = tool_near_word(argv[0], names, N_COMMANDS);
  return near ? tool_usage_error("ascend: unknown command '%.60s': did you mean '%s'?", argv[0],
                                 near)
              : tool_usage_error("ascend: unknown command '%.60s': must be %s", argv[0], list);
}
