/* The commands of `splitkv ascend`. Each takes its arguments without the command's name and returns
 * an exit status of tool.h.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_ASCEND_H
#define SPLITKV_TOOL_ASCEND_H

int ascend_plan(int argc, char **argv);
int ascend_explain(int argc, char **argv);
int ascend_check(int argc, char **argv);
int ascend_bench(int argc, char **argv);
int ascend_run(int argc, char **argv);

#endif
