/* The group half of kafka_admin.h, and the answers of librdkafka's asynchronous calls. */
#include <stdlib.h>
#include <string.h>

#include "kafka_admin.h"
#include "kafka_internal.h"

/*
 * A request for a coordinator that times out inside librdkafka while the coordinator is away aborts
 * the process when it comes back (librdkafka issues 3663 and 4605: the request is freed twice). So
 * these requests get the longest time there is, the caller's time-out only cancels our call, and
 * while one that was cancelled is still out no other is sent for the same group: however long a
 * broker is away, one request a group waits for it.
 */
#define LONGEST_MS 3600000

static rd_kafka_AdminOptions_t *make_options(rd_kafka_t *rk, rd_kafka_admin_op_t op, void *opaque)
{
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, op);
    rd_kafka_AdminOptions_set_request_timeout(options, LONGEST_MS, NULL, 0);
    rd_kafka_AdminOptions_set_opaque(options, opaque);
    return options;
}

/*
 * A call for a group's coordinator, or NULL after it has failed because an earlier one is still
 * out.
 */
static struct kafka_call *group_call(struct kafka_client *client, const char *group,
                                     kafka_done *done, void *arg)
{
    bool waiting = false;
    for (struct kafka_call *other = client->calls; other != NULL; other = other->next)
        waiting |= other->done == NULL && other->group != NULL && strcmp(other->group, group) == 0;
    struct kafka_call *call = kafka_call_new(client, done, arg);
    call->group = strdup(group);
    if (!waiting)
        return call;
    kafka_call_fail(call, RD_KAFKA_RESP_ERR__WAIT_COORD,
                    "the group's coordinator still owes an earlier answer");
    return NULL;
}

struct kafka_call *kafka_admin_group_offsets(struct kafka_admin *admin, const char *group,
                                             const struct kafka_partition *items, size_t count,
                                             kafka_done *done, void *arg)
{
    struct kafka_client *client = kafka_admin_client(admin);
    struct kafka_call *call = group_call(client, group, done, arg);
    if (call == NULL)
        return NULL;
    rd_kafka_topic_partition_list_t *list = items != NULL ? kafka_list(items, count) : NULL;
    rd_kafka_ListConsumerGroupOffsets_t *request = rd_kafka_ListConsumerGroupOffsets_new(group,
                                                                                         list);
    rd_kafka_AdminOptions_t *options =
        make_options(client->rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, call);
    rd_kafka_ListConsumerGroupOffsets(client->rk, &request, 1, options, client->replies);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_ListConsumerGroupOffsets_destroy(request);
    if (list != NULL)
        rd_kafka_topic_partition_list_destroy(list);
    return call;
}

struct kafka_call *kafka_admin_alter_group_offsets(struct kafka_admin *admin, const char *group,
                                                   const struct kafka_partition *items, size_t count,
                                                   kafka_done *done, void *arg)
{
    struct kafka_client *client = kafka_admin_client(admin);
    struct kafka_call *call = group_call(client, group, done, arg);
    if (call == NULL)
        return NULL;
    rd_kafka_topic_partition_list_t *list = kafka_list(items, count);
    rd_kafka_AlterConsumerGroupOffsets_t *request = rd_kafka_AlterConsumerGroupOffsets_new(group,
                                                                                           list);
    rd_kafka_AdminOptions_t *options =
        make_options(client->rk, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, call);
    rd_kafka_AlterConsumerGroupOffsets(client->rk, &request, 1, options, client->replies);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_AlterConsumerGroupOffsets_destroy(request);
    rd_kafka_topic_partition_list_destroy(list);
    return call;
}

struct kafka_call *kafka_admin_describe_groups(struct kafka_admin *admin, const char **groups,
                                               size_t count,
                                               kafka_done *done, void *arg)
{
    struct kafka_client *client = kafka_admin_client(admin);
    struct kafka_call *call = group_call(client, count > 0 ? groups[0] : "", done, arg);
    if (call == NULL)
        return NULL;
    rd_kafka_AdminOptions_t *options =
        make_options(client->rk, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, call);
    rd_kafka_DescribeConsumerGroups(client->rk, groups, count, options, client->replies);
    rd_kafka_AdminOptions_destroy(options);
    return call;
}

/* ---- answers ---- */

/* One group was asked about, so its error is the call's. */
static void read_group_result(struct kafka_result *result, const rd_kafka_group_result_t **groups,
                              size_t count)
{
    if (count == 0) {
        result->failed = true;
        err_set(&result->err, "_BAD_MSG", "the answer names no group");
        return;
    }
    const rd_kafka_error_t *error = rd_kafka_group_result_error(groups[0]);
    if (error != NULL)
        result->failed = kafka_err(&result->err, rd_kafka_error_code(error),
                                   rd_kafka_error_string(error)) < 0;
    result->partitions = kafka_list_result(result, rd_kafka_group_result_partitions(groups[0]));
}

static const char *copy(struct kafka_result *result, const char *text)
{
    return text != NULL ? kafka_result_copy(result, text, strlen(text)) : NULL;
}

static void read_member(struct kafka_result *result, struct kafka_member *to,
                        const rd_kafka_MemberDescription_t *from)
{
    to->id = copy(result, rd_kafka_MemberDescription_consumer_id(from));
    to->client = copy(result, rd_kafka_MemberDescription_client_id(from));
    to->host = copy(result, rd_kafka_MemberDescription_host(from));
    const rd_kafka_MemberAssignment_t *assignment = rd_kafka_MemberDescription_assignment(from);
    if (assignment != NULL)
        kafka_list_copy(result, &to->partitions, rd_kafka_MemberAssignment_partitions(assignment));
}

static void read_groups(struct kafka_result *result,
                        const rd_kafka_ConsumerGroupDescription_t **from, size_t count)
{
    struct kafka_groups *groups = kafka_result_alloc(result, sizeof(*groups));
    groups->items = kafka_result_alloc(result, count * sizeof(*groups->items));
    groups->count = count;
    for (size_t i = 0; i < count; i++) {
        struct kafka_group *to = &groups->items[i];
        const rd_kafka_error_t *error = rd_kafka_ConsumerGroupDescription_error(from[i]);
        to->name = copy(result, rd_kafka_ConsumerGroupDescription_group_id(from[i]));
        to->state = rd_kafka_consumer_group_state_name(rd_kafka_ConsumerGroupDescription_state(from[i]));
        to->error = error != NULL ? kafka_err_name(rd_kafka_error_code(error)) : NULL;
        to->count = rd_kafka_ConsumerGroupDescription_member_count(from[i]);
        to->members = kafka_result_alloc(result, to->count * sizeof(*to->members));
        for (size_t j = 0; j < to->count; j++)
            read_member(result, &to->members[j],
                        rd_kafka_ConsumerGroupDescription_member(from[i], j));
    }
    result->groups = groups;
}

static void read_commit(struct kafka_result *result, rd_kafka_event_t *event)
{
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    if (code == RD_KAFKA_RESP_ERR__NO_OFFSET) { /* nothing stored since the last commit */
        result->failed = false;
        result->partitions = kafka_result_alloc(result, sizeof(*result->partitions));
        return;
    }
    struct kafka_partitions *list = kafka_list_result(result,
                                                      rd_kafka_event_topic_partition_list(event));
    size_t kept = 0;
    /* a commit of stored offsets also lists partitions that have none */
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].offset >= 0 || list->items[i].error != NULL)
            list->items[kept++] = list->items[i];
    list->count = kept;
    result->partitions = list;
}

void kafka_reply(struct kafka_call *call, rd_kafka_event_t *event)
{
    struct kafka_result result = {0};
    size_t count = 0;
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    result.failed = kafka_err(&result.err, code, rd_kafka_event_error_string(event)) < 0;
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_OFFSET_COMMIT:
        read_commit(&result, event);
        break;
    case RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT:
        if (!result.failed) {
            const rd_kafka_group_result_t **groups = rd_kafka_ListConsumerGroupOffsets_result_groups(
                rd_kafka_event_ListConsumerGroupOffsets_result(event), &count);
            read_group_result(&result, groups, count);
        }
        break;
    case RD_KAFKA_EVENT_ALTERCONSUMERGROUPOFFSETS_RESULT:
        if (!result.failed) {
            const rd_kafka_group_result_t **groups = rd_kafka_AlterConsumerGroupOffsets_result_groups(
                rd_kafka_event_AlterConsumerGroupOffsets_result(event), &count);
            read_group_result(&result, groups, count);
        }
        break;
    case RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT:
        if (!result.failed) {
            const rd_kafka_ConsumerGroupDescription_t **groups = rd_kafka_DescribeConsumerGroups_result_groups(
                rd_kafka_event_DescribeConsumerGroups_result(event), &count);
            read_groups(&result, groups, count);
        }
        break;
    default:
        result.failed = true;
        err_set(&result.err, "_BAD_MSG", "an answer of an unexpected kind");
    }
    kafka_call_end(call, &result);
    kafka_result_free(&result);
}
