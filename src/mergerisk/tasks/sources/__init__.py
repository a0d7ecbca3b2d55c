"""The kinds of tasks, a file each; see :data:`mergerisk.tasks.catalogue.TASK_KINDS`."""
