#include "yaml_tree.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct entry {
    struct yaml_node node; /* first: an entry is its node */
    struct entry *next;    /* of all entries, newest first */
    struct entry *next_anchor;
    char *anchor;
    size_t size; /* nodes below and with it, aliases unfolded; 0 while it is being read */
    char *text;
    char *tag;
};

struct yaml_tree {
    struct entry *entries;
    struct entry *anchors;
    struct entry *root;
};

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    struct yaml_tree *tree;
    const char *text;
    struct err *err;
    struct yaml_mark *mark;
};

void yaml_tree_free(struct yaml_tree *tree)
{
    if (tree == NULL)
        return;
    while (tree->entries != NULL) {
        struct entry *entry = tree->entries;
        tree->entries = entry->next;
        free(entry->anchor);
        free(entry->text);
        free(entry->tag);
        free(entry->node.items);
        free(entry);
    }
    free(tree);
}

const struct yaml_node *yaml_tree_root(const struct yaml_tree *tree)
{
    return &tree->root->node;
}

static int refuse(struct reader *r, yaml_mark_t at, const char *what)
{
    r->mark->line = at.line + 1;
    r->mark->column = at.column + 1;
    return err_set(r->err, "YAML", "%s", what);
}

static int out_of_memory(struct reader *r)
{
    return refuse(r, r->event.start_mark, "out of memory");
}

/* libyaml's reader reports bytes it cannot use by their offset only. */
static yaml_mark_t mark_of_offset(const char *text, size_t offset)
{
    yaml_mark_t mark = {.index = offset};
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            mark.line++;
            mark.column = 0;
        } else if (((unsigned char)text[i] & 0xC0) != 0x80) {
            mark.column++;
        }
    }
    return mark;
}

static int parser_error(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    yaml_mark_t mark = p->problem_mark;
    if (p->error == YAML_MEMORY_ERROR)
        return refuse(r, p->mark, "out of memory");
    if (p->error == YAML_READER_ERROR)
        mark = mark_of_offset(r->text, p->problem_offset);
    refuse(r, mark, "");
    const char *problem = p->problem != NULL ? p->problem : "not YAML";
    if (p->context == NULL)
        return err_set(r->err, "YAML", "%s", problem);
    return err_set(r->err, "YAML", "%s %s", problem, p->context);
}

/* Moves to the next event; the one before is gone. */
static int advance(struct reader *r)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event) != 0;
    return r->has_event ? 0 : parser_error(r);
}

static char *copy(const char *s, size_t length)
{
    char *result = malloc(length + 1);
    if (result != NULL) {
        memcpy(result, s, length);
        result[length] = '\0';
    }
    return result;
}

static struct entry *new_entry(struct reader *r, enum yaml_kind kind, const yaml_char_t *anchor,
                               const yaml_char_t *tag)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (entry == NULL)
        return NULL;
    entry->next = r->tree->entries;
    r->tree->entries = entry;
    entry->node.kind = kind;
    entry->node.line = r->event.start_mark.line + 1;
    entry->node.column = r->event.start_mark.column + 1;
    if (anchor != NULL) {
        entry->anchor = copy((const char *)anchor, strlen((const char *)anchor));
        if (entry->anchor == NULL)
            return NULL;
        entry->next_anchor = r->tree->anchors;
        r->tree->anchors = entry;
    }
    if (tag != NULL && strcmp((const char *)tag, "!") != 0) {
        entry->tag = copy((const char *)tag, strlen((const char *)tag));
        if (entry->tag == NULL)
            return NULL;
        entry->node.tag = entry->tag;
    }
    return entry;
}

static struct entry *find_anchor(const struct yaml_tree *tree, const char *name)
{
    for (struct entry *entry = tree->anchors; entry != NULL; entry = entry->next_anchor) {
        if (strcmp(entry->anchor, name) == 0)
            return entry; /* the newest: an anchor may be set again */
    }
    return NULL;
}

static int append(struct reader *r, struct entry *parent, struct entry *child)
{
    struct yaml_node *node = &parent->node;
    if ((node->count & (node->count - 1)) == 0) { /* the room doubles at each power of two */
        size_t room = node->count == 0 ? 1 : node->count * 2;
        struct yaml_node **items = realloc(node->items, room * sizeof(*items));
        if (items == NULL)
            return out_of_memory(r);
        node->items = items;
    }
    node->items[node->count++] = &child->node;
    return 0;
}

static int read_node(struct reader *r, unsigned depth, struct entry **result);

static int read_alias(struct reader *r, struct entry **result)
{
    const char *name = (const char *)r->event.data.alias.anchor;
    struct entry *target = find_anchor(r->tree, name);
    if (target == NULL)
        return refuse(r, r->event.start_mark, "alias without an anchor before it");
    if (target->size == 0)
        return refuse(r, r->event.start_mark, "alias of a node that contains it");
    *result = target;
    return 0;
}

static int read_scalar(struct reader *r, struct entry **result)
{
    struct entry *entry =
        new_entry(r, YAML_SCALAR, r->event.data.scalar.anchor, r->event.data.scalar.tag);
    if (entry == NULL)
        return out_of_memory(r);
    entry->text = copy((const char *)r->event.data.scalar.value, r->event.data.scalar.length);
    if (entry->text == NULL)
        return out_of_memory(r);
    entry->node.value = entry->text;
    entry->node.length = r->event.data.scalar.length;
    entry->node.plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
                        r->event.data.scalar.tag == NULL;
    entry->size = 1;
    *result = entry;
    return 0;
}

static int read_collection(struct reader *r, unsigned depth, struct entry **result)
{
    bool map = r->event.type == YAML_MAPPING_START_EVENT;
    yaml_event_type_t end = map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    if (depth == YAML_TREE_DEPTH)
        return refuse(r, r->event.start_mark, "nested too deeply");
    struct entry *entry =
        map ? new_entry(r, YAML_MAP, r->event.data.mapping_start.anchor,
                        r->event.data.mapping_start.tag)
            : new_entry(r, YAML_SEQ, r->event.data.sequence_start.anchor,
                        r->event.data.sequence_start.tag);
    if (entry == NULL)
        return out_of_memory(r);
    size_t size = 1;
    for (;;) {
        struct entry *child;
        if (advance(r) < 0)
            return -1;
        if (r->event.type == end)
            break;
        if (read_node(r, depth + 1, &child) < 0)
            return -1;
        size += child->size;
        if (size > YAML_TREE_NODES)
            return refuse(r, r->event.start_mark, "too many nodes");
        if (append(r, entry, child) < 0)
            return -1;
    }
    entry->size = size;
    *result = entry;
    return 0;
}

/* The node whose first event is at hand; afterwards its last one is. */
static int read_node(struct reader *r, unsigned depth, struct entry **result)
{
    switch (r->event.type) {
    case YAML_ALIAS_EVENT: return read_alias(r, result);
    case YAML_SCALAR_EVENT: return read_scalar(r, result);
    default: return read_collection(r, depth, result);
    }
}

static int read_stream(struct reader *r)
{
    if (advance(r) < 0 || advance(r) < 0) /* the stream's start, then a document's or its end */
        return -1;
    if (r->event.type == YAML_STREAM_END_EVENT) {
        refuse(r, r->event.start_mark, "");
        return err_set(r->err, "EMPTY", "empty document");
    }
    if (advance(r) < 0)
        return -1;
    yaml_mark_t start = r->event.start_mark;
    if (read_node(r, 0, &r->tree->root) < 0)
        return -1;
    const struct yaml_node *root = &r->tree->root->node;
    if (advance(r) < 0 || advance(r) < 0) /* the document's end, then what follows */
        return -1;
    if (r->event.type != YAML_STREAM_END_EVENT)
        return refuse(r, r->event.start_mark, "a second document begins here, expected one");
    if (root->kind == YAML_SCALAR && root->plain && root->length == 0) {
        refuse(r, start, "");
        return err_set(r->err, "EMPTY", "empty document");
    }
    return 0;
}

struct yaml_tree *yaml_tree_parse(const char *text, size_t length, struct err *err,
                                  struct yaml_mark *mark)
{
    struct yaml_mark unused;
    struct reader r = {.text = text, .err = err, .mark = mark != NULL ? mark : &unused};
    *r.mark = (struct yaml_mark){.line = 1, .column = 1};
    r.tree = calloc(1, sizeof(*r.tree));
    if (r.tree == NULL || yaml_parser_initialize(&r.parser) == 0) {
        err_set(err, "YAML", "out of memory");
        free(r.tree);
        return NULL;
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
    if (read_stream(&r) < 0) {
        yaml_tree_free(r.tree);
        r.tree = NULL;
    }
    if (r.has_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return r.tree;
}
