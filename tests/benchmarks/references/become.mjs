// Becomes the command in $BECOME, with the same stdin, stdout and process id.
const command = JSON.parse(process.env.BECOME);
process.execve(command[0], command);
