from simulations.bench_table import print_figures


def test_a_figure_is_a_line_and_indents_stay(capsys):
    print_figures("Title", [("whole", "3 ms", "<= 4 ms"), ("  part [0]", "1 ms", "")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].strip() == "Title"
    assert lines[1].split() == ["figure", "value", "aim"]
    assert lines[2:] == ["whole        3 ms  <= 4 ms", "  part [0]   1 ms"]
