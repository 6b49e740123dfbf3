#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "yaml_tree.h"

static struct yaml_tree *parse(const char *text, struct err *err, struct yaml_mark *mark)
{
    return yaml_tree_parse(text, strlen(text), err, mark);
}

static void test_tree(void **state)
{
    (void)state;
    struct err err;
    struct yaml_tree *tree = parse("a: [1, 'x']\nb: &n {c: d}\ne: *n\n", &err, NULL);
    assert_non_null(tree);
    const struct yaml_node *root = yaml_tree_root(tree);
    assert_int_equal(root->kind, YAML_MAP);
    assert_int_equal(root->count, 6);
    const struct yaml_node *list = root->items[1];
    assert_int_equal(list->kind, YAML_SEQ);
    assert_int_equal(list->count, 2);
    assert_int_equal(list->items[1]->line, 1);
    assert_int_equal(list->items[1]->column, 8);
    assert_string_equal(list->items[1]->value, "x");
    assert_false(list->items[1]->plain);
    assert_true(list->items[0]->plain);
    assert_ptr_equal(root->items[3], root->items[5]); /* the alias is the node itself */
    yaml_tree_free(tree);
    yaml_tree_free(NULL);
}

/* Wrong texts at every stage: each frees what it had (a sanitizer's business) and says where. */
static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *code;
        unsigned long line, column;
    } cases[] = {
        {"", "EMPTY", 1, 1},
        {"# nothing\n", "EMPTY", 2, 1},
        {"a: *missing", "YAML", 1, 4},
        {"&x [*x]", "YAML", 1, 5},
        {"a: &x {b: [1, 2, c: *y]}", "YAML", 1, 21},
        {"a: 1\n--- \nb: 2\n", "YAML", 2, 1},
        {"a: [1, 2\nb: 3", "YAML", 2, 2},
        {"- 1\nb: 2", "YAML", 2, 1},
        {"b: \xff", "YAML", 1, 4},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err;
        struct yaml_mark mark;
        assert_null(parse(cases[i].text, &err, &mark));
        assert_string_equal(err.code, cases[i].code);
        assert_int_equal(mark.line, cases[i].line);
        assert_int_equal(mark.column, cases[i].column);
        assert_true(strlen(err.msg) > 0);
    }
}

static void test_aliases_count_as_copies(void **state)
{
    (void)state;
    struct err err;
    char text[8192] = "- &a [";
    for (int i = 0; i < 399; i++)
        strcat(text, "1,");
    strcat(text, "1]\n- &b [");
    for (int i = 0; i < 248; i++)
        strcat(text, "*a,");
    strcat(text, "*a]\n");
    struct yaml_tree *tree = parse(text, &err, NULL); /* 401 + 1 + 249 * 401 = 100,251 */
    assert_null(tree);
    assert_string_equal(err.msg, "too many nodes");
    strcpy(strstr(text, "*a,*a,*a,"), "*a]\n"); /* 401 + 1 + 1 * 401 */
    tree = parse(text, &err, NULL);
    assert_non_null(tree);
    yaml_tree_free(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_aliases_count_as_copies),
    };
    return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
