//! Objects against the schema that is shipped, and against what went in.

use serde_json::Value;

use super::*;
use crate::model::story::{MS, SECOND, facts, model, names, process, thread, tick, weight};
use crate::tick::{
    CpuTick, DiskTick, Event, Hist, Lens, Life, Loss, NodeTick, ProgramCost, Quota, Sampler, Session, SlowRequest,
    State, Stuck, Tick,
};

const SCHEMA: &str = include_str!("../../../assets/tick.schema.json");

fn object(model: &Model) -> Value {
    let mut out = Vec::new();
    write(&mut out, model).expect("memory takes it");
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&out).expect("JSON")
}

fn validate(object: &Value) {
    let schema = serde_json::from_str(SCHEMA).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let errors: Vec<String> =
        validator.iter_errors(object).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(errors, [""; 0]);
}

fn full() -> Tick {
    let mut tick = Tick {
        names: names(&["main"], &[&["main"]]),
        processes: vec![facts(7, "a\x1b[31m\u{9b}\u{202e}\u{e0041}界\"")],
        threads: vec![thread(7, 7, &[(State::User, 400 * MS), (State::Preempted, 100 * MS), (State::Lock, 500 * MS)])],
        stacks: vec![weight(7, Lens::OnCpu, 0, 3)],
        cpus: vec![CpuTick { running: Some(crate::model::story::thread_key(7)), ..CpuTick::default() }],
        nodes: vec![NodeTick { numa_hit: Some(4), ..NodeTick::default() }],
        disks: vec![DiskTick { dev: 254 << 20 | 3, name: "vda3".into(), ..DiskTick::default() }],
        losses: vec![(Loss::StackMapFull, 5)],
        ..tick(0)
    };
    tick.threads[0].runq = Hist::of([MS, 2 * MS]);
    tick.cost.programs.push(ProgramCost { name: "sched_switch".into(), runs: 9, ns: 500 });
    tick.slow_requests.push(SlowRequest {
        end_ns: 5,
        dev: 254 << 20,
        op: crate::tick::DiskOp::Flush,
        sector: 0,
        bytes: 0,
        queued_ns: 1,
        device_ns: 2,
        process: process(7),
        comm: "a".into(),
    });
    tick.quotas.push(Quota {
        cgroup: "/a".into(),
        quota_ns: 2,
        period_ns: 3,
        periods: 10,
        throttled: 9,
        throttled_ns: 5,
    });
    tick.stuck.push(Stuck { process: process(7), since_ns: 5, place: Some("rwsem".into()), ..Stuck::default() });
    for what in [Life::Fork { parent: 1 }, Life::Exec, Life::Exit { status: 9 }] {
        tick.events.push(Event { at_ns: 1, process: process(7), comm: "a".into(), what });
    }
    tick
}

#[test]
fn it_says_what_went_in() {
    let mut model = model();
    model.apply(full());
    let object = object(&model);
    validate(&object);
    let process = &object["processes"][0];
    assert_eq!(process["pid"], 7);
    assert_eq!(process["on_cpu_user_ns"], 400 * MS);
    assert_eq!((&process["runnable_ns"], &process["preempted_ns"]), (&(100 * MS).into(), &(100 * MS).into()));
    assert_eq!(process["blocked_ns"]["lock"], 500 * MS);
    assert_eq!(process["runq_latency"]["max_ns"], 2 * MS);
    assert_eq!(process["off_cpu"]["p50_ns"], Value::Null, "absent is not zero");
    assert_eq!(process["node_on_cpu_ns"][0], 400 * MS);
    assert_eq!((&process["samples"], &process["stacks_complete"]), (&3.into(), &3.into()));
    assert_eq!(object["span"]["end_ns"], SECOND);
    assert_eq!(object["losses"], serde_json::json!({"stack_map_full": 5}));
    assert_eq!((&object["disks"][0]["major"], &object["disks"][0]["minor"]), (&254.into(), &3.into()));
    assert_eq!(object["cpus"][0]["running"]["pid"], 7);
    assert_eq!(object["events"].as_array().map(Vec::len), Some(3));
    assert_eq!(object["cost"]["bpf_ns"], 500);
    assert_eq!(object["slow_requests"][0]["op"], "flush");
    assert_eq!(object["stuck"], serde_json::json!([{"tid": 0, "pid": 7, "since_ns": 5, "wchan": "rwsem"}]));
    let quota = serde_json::json!({"cgroup": "/a", "quota_ns": 2, "period_ns": 3, "periods": 10, "throttled_periods": 9, "throttled_ns": 5});
    assert_eq!(object["cpu_quotas"], serde_json::json!([quota]));
}

#[test]
fn it_says_who_observed_and_how() {
    let session = Session {
        version: "0.1.0".into(),
        command: "sberf top --json -- sh -c 'a\x1b[31m'".into(),
        interval_ns: SECOND,
        started_wall_ns: 1_793_000_000 * SECOND,
        sampler: Sampler::CpuClock(99),
        ..Session::default()
    };
    let mut model = Model::new(session, crate::model::Limits::default());
    model.apply(full());
    let object = object(&model);
    validate(&object);
    let expected = serde_json::json!({
        "version": "0.1.0", "command": "sberf top --json -- sh -c 'a\x1b[31m'", "started": "2026-10-26T07:33:20.000Z",
        "interval_ns": SECOND, "sampler": {"by": "cpu-clock", "rate_hz": 99},
    });
    assert_eq!(object["session"], expected);
}

#[test]
fn nothing_in_it_moves_a_cursor_and_names_come_back_exactly() {
    let mut model = model();
    let tick = full();
    let name = tick.processes[0].comm.clone();
    model.apply(tick);
    let mut out = Vec::new();
    write(&mut out, &model).expect("memory takes it");
    let text = String::from_utf8(out).expect("text");
    assert!(!text.trim_end().chars().any(is_harmful));
    assert_eq!(object(&model)["processes"][0]["comm"], name);
}

#[test]
fn losses_and_events_are_those_of_the_tick() {
    let mut model = model();
    model.apply(full());
    model.apply(Tick { threads: vec![thread(7, 7, &[(State::Lock, SECOND)])], ..tick(1) });
    let object = object(&model);
    validate(&object);
    assert_eq!(object["losses"], serde_json::json!({}));
    assert_eq!(object["events"], serde_json::json!([]));
    assert_eq!(object["slow_requests"], serde_json::json!([]));
    assert_eq!(object["processes"][0]["blocked_ns"]["lock"], SECOND);
}

#[test]
fn a_model_that_knows_nothing_writes_a_valid_object() {
    validate(&object(&model()));
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let mut model = model();
    model.apply(full());
    let mut wrong = object(&model);
    wrong["processes"][0]["on_cpu_user_ns"] = Value::from(-1);
    let schema = serde_json::from_str(SCHEMA).expect("JSON");
    assert!(!jsonschema::draft202012::is_valid(&schema, &wrong));
}
