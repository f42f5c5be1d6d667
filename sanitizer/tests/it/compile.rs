#[test]
fn what_is_raw_can_not_be_written_and_what_is_sanitized_can_not_be_made() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/compile/sanitized_is_written.rs");
    cases.compile_fail("tests/compile/fail_*.rs");
}
