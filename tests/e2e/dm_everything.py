# A beamline's definition as DM users write them: comments, joined strings, nested quotes, optional arguments.
# ruff: noqa: B018, ISC003
{
    # who it belongs to
    'name': 'everything-01',
    'owner': 'tester',
    'id': '6543210',
    'version': '0.0.0',
    'description': 'Arguments:\n' + \
        '\tfilePath: the scan\n' + \
        '\tsmooth: optional',
    'detector': 'kept, though nobody knows this key',
    'stages': {
        # inserted out of order on purpose: stages are sorted as strings
        '02-PER-FILE': {
            'command': 'echo "Name: $(basename $filePath)"; echo "size=`stat -c %s $filePath`"',
            'outputVariableRegexList': ['Name: (?P<baseName>.*)', 'size=(?P<fileSize>\\d+)'],
            'parallelExec': False,
            'workingDir': '$outputDir',
        },
        '01-START': {
            'command': 'echo "Random number: 3"; echo "Args: --label \"a b\""; echo "machine: polaris" >&2',
            'outputVariableRegexList': ['Random number: (?P<randomNumber>.*)', 'Args: (?P<capturedArgs>.*)', 'nothing (?P<never>x)'],
        },
        '03-SSH': {
            # what ssh does with its argument: another shell reads it
            'command': 'bash -c "printf \'%s|\' $capturedArgs" > $outputDir/ssh.txt',
        },
        '04-UNSET': {
            'command': 'set -- "$smooth" "$gpuID"; echo "count: $# [${1:-default}] [${2:-none}]" >> $outputDir/unset.txt',
        },
        '05-SKIPPED': {
            'command': 'touch $outputDir/never',
            'runIf': '"$randomNumber" != "3" and (".h5" in "$filePath" or ".mda" in "$filePath")',
        },
        '06-RUN': {
            'command': 'touch $outputDir/ran',
            'runIf': 'not ".mda" in "$baseName" and "$neverSet" != "x"',
        },
        '07-COUNT': {
            'command': 'echo "Count: 0"',
            'outputVariableRegexList': ['Count: (?P<count>.*)'],
        },
        '08-REPEAT': {
            'command': 'echo "Count: `expr $count + 1`"',
            'outputVariableRegexList': ['Count: (?P<count>.*)'],
            'repeatPeriod': 0.3, 'repeatUntil': '"$count" == "$randomNumber"', 'maxRepeats': 10,
        },
        '09-SAME-FILE': {
            'command': 'echo $filePath:$baseName >> pairs.txt',
            'workingDir': '$outputDir',
            'execOutFormat': 'text',
        },
        '10-REDIRECT': {
            'command': 'echo home is ~ | tr a-z A-Z > $outputDir/home.txt ; ' \
                       + 'echo done',
        },
        '11-OWN-FILES': {
            'command': 'echo own $(basename $filePath) >> own.txt',
            'workingDir': '$outputDir',
            'dataDir': '$workingDir/..',
            'filePathPattern': '[b]*.h5',
            'parallelExec': True,
            'monitorCmd': 'true',
        },
        '12-OWN-LIST': {
            'command': 'echo listed $(basename $filePath) >> own.txt',
            'workingDir': '$outputDir',
            'dataDir': '$workingDir/..',
            'filePath': 'b.h5',
            'filePathList': ['a.h5', 'b.h5'],
            'parallelExec': False,
        },
    },
}