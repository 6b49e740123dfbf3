/*
 * The binding files, one open function each: it pushes its module's table and finds the host in its first upvalue.
 */
#ifndef ROUSE_LUA_MODULES_H
#define ROUSE_LUA_MODULES_H

#include <lua.h>

int task_open(lua_State *L);    /* rouse.core.task, lua_task.c */
int sys_open(lua_State *L);     /* rouse.core.sys, lua_sys.c */
int kafka_open(lua_State *L);   /* rouse.core.kafka, lua_kafka.c */
int http_open(lua_State *L);    /* rouse.core.http, lua_http.c */
int json_open(lua_State *L);    /* rouse.json, lua_json.c */
int yaml_open(lua_State *L);    /* rouse.yaml, lua_yaml.c */
int process_open(lua_State *L); /* rouse.process, lua_process.c */
int log_open(lua_State *L);     /* rouse.log, lua_log.c */
int pattern_open(lua_State *L); /* rouse.core.pattern, lua_pattern.c */

#endif
