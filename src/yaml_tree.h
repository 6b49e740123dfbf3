/*
 * A YAML document as a tree whose nodes know their line and column. Scalars stay text: what a value
 * means is the caller's business. Aliases are resolved. Anybody may use it; it knows no Lua. (The
 * file is not called yaml.h because libyaml's is.)
 */
#ifndef ROUSE_YAML_TREE_H
#define ROUSE_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

#define YAML_TREE_NODES 100000 /* every alias counts as a copy: a bomb is refused, not unfolded */
#define YAML_TREE_DEPTH 100

enum yaml_kind { YAML_SCALAR = 0, YAML_SEQ, YAML_MAP };

struct yaml_node {
    enum yaml_kind kind;
    unsigned long line; /* from 1, columns in characters */
    unsigned long column;
    bool plain;        /* scalar without quotes, block style or tag */
    const char *tag;   /* explicit tag or NULL */
    const char *value; /* scalar: its text, also terminated with 0 */
    size_t length;
    struct yaml_node **items; /* sequence: items; map: key, value, key, value */
    size_t count;             /* of pointers in items */
};

struct yaml_mark {
    unsigned long line;
    unsigned long column;
};

struct yaml_tree;

/*
 * Parses one document. NULL on failure: err has code "YAML", or "EMPTY" for a text without a
 * document, and *mark says where. The tree is a copy of what it needs; yaml_tree_free frees it.
 */
struct yaml_tree *yaml_tree_parse(const char *text, size_t length, struct err *err,
                                  struct yaml_mark *mark);

/* Owned by the tree; a node may be reached by several ways when the text has aliases. */
const struct yaml_node *yaml_tree_root(const struct yaml_tree *tree);

/* NULL is allowed. */
void yaml_tree_free(struct yaml_tree *tree);

#endif
