/* tracing-oslog includes it and calls nothing of it from C. */
