/* Of Apple's os_log just what tracing-oslog's wrapper.c calls, so that it compiles where there is no SDK of macOS. Written
   anew after the documentation, for checks only: what is released is compiled on a Mac with the true header. */
#pragma once
#include <mach-o/loader.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct os_log_s *os_log_t;
typedef uint8_t os_log_type_t;

extern struct mach_header __dso_handle;
extern struct os_log_s _os_log_default;
#define OS_LOG_DEFAULT (&_os_log_default)

os_log_t os_log_create(const char *subsystem, const char *category);
bool os_log_type_enabled(os_log_t log, os_log_type_t type);
void _os_log_impl(void *dso, os_log_t log, os_log_type_t type, const char *format, uint8_t *buffer, uint32_t size);

/* clang's builtins lay out the arguments as the log's daemon expects them. */
#define os_log_with_type(log, type, format, ...)                                                                            \
	do {                                                                                                                 \
		if (os_log_type_enabled((log), (type))) {                                                                    \
			uint8_t buffer[__builtin_os_log_format_buffer_size(format, ##__VA_ARGS__)];                          \
			__builtin_os_log_format(buffer, format, ##__VA_ARGS__);                                              \
			_os_log_impl(&__dso_handle, (log), (type), format, buffer, (uint32_t)sizeof buffer);                 \
		}                                                                                                            \
	} while (0)
