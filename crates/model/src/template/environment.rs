//! Filters, tests and functions that a template may use: those of Jinja2 and of Hugging Face, each paid for.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, ValueOrKwargs};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value, filters, functions,
};

use super::budget::Budget;
use super::methods::{self, join, pay_for_format, pay_for_replace};
use super::{clock, operators, python, tojson::tojson};

/// How deep macros, loops and blocks may call each other.
const RECURSION_LIMIT: usize = 200;

/// How many numbers a range may have.
const RANGE_NUMBERS: i128 = 100_000;

type Payment = fn(&Budget, &[Value]) -> Result<(), Error>;

/// An environment for one rendering.
pub(crate) fn environment(budget: &Arc<Budget>, fuel: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_debug(false);
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let purse = Arc::clone(budget);
    environment.set_formatter(move |out, _, value| {
        let text = python::text(value, &purse)?;
        out.write_str(&text).map_err(Error::from)
    });
    let purse = Arc::clone(budget);
    environment.set_unknown_method_callback(move |state, value, method, args| {
        methods::call(&purse, state, value, method, args)
    });
    add_filters(&mut environment, budget);
    add_tests(&mut environment, budget);
    add_functions(&mut environment, budget);
    operators::register(&mut environment, budget);
    environment
}

/// Pays for the texts of the arguments.
fn look(budget: &Budget, args: &[Value]) -> Result<(), Error> {
    args.iter().try_for_each(|argument| budget.look(argument))
}

/// Pays for everything in the arguments.
fn walk(budget: &Budget, args: &[Value]) -> Result<(), Error> {
    args.iter().try_for_each(|argument| budget.walk(argument))
}

/// Pays for as many items, or for lines as wide, as the largest number in the arguments says.
fn count(budget: &Budget, args: &[Value]) -> Result<(), Error> {
    walk(budget, args)?;
    let mut largest = 0;
    for argument in args.iter().skip(1) {
        largest = largest.max(argument.as_i64().unwrap_or(0));
        if argument.is_kwargs() {
            for key in argument.try_iter()? {
                largest = largest.max(argument.get_item(&key)?.as_i64().unwrap_or(0));
            }
        }
    }
    let lines = args.first().and_then(Value::as_str).map_or(0, |text| text.matches('\n').count());
    let bytes = usize::try_from(largest).unwrap_or(usize::MAX).saturating_mul(lines.max(32));
    budget.memory(bytes)
}

fn replacement(budget: &Budget, args: &[Value]) -> Result<(), Error> {
    walk(budget, args)?;
    match args {
        [text, from, to, ..] => pay_for_replace(budget, text.as_str().unwrap_or_default(), from, to),
        _ => Ok(()),
    }
}

fn format(budget: &Budget, args: &[Value]) -> Result<(), Error> {
    match args {
        [format, rest @ ..] => pay_for_format(budget, format.as_str().unwrap_or_default(), rest),
        [] => Ok(()),
    }
}

fn add_filters(environment: &mut Environment<'static>, budget: &Arc<Budget>) {
    // It writes values without a limit.
    environment.remove_filter("pprint");
    let named: [(&'static str, Payment, Value); 43] = [
        ("safe", look, Value::from_function(filters::safe)),
        ("escape", look, Value::from_function(filters::escape)),
        ("e", look, Value::from_function(filters::escape)),
        ("lower", look, Value::from_function(filters::lower)),
        ("upper", look, Value::from_function(filters::upper)),
        ("title", look, Value::from_function(filters::title)),
        ("capitalize", look, Value::from_function(filters::capitalize)),
        ("trim", look, Value::from_function(filters::trim)),
        ("lines", look, Value::from_function(filters::lines)),
        ("split", look, Value::from_function(filters::split)),
        ("replace", replacement, Value::from_function(filters::replace)),
        ("indent", count, Value::from_function(filters::indent)),
        ("format", format, Value::from_function(filters::format)),
        ("length", look, Value::from_function(filters::length)),
        ("count", look, Value::from_function(filters::length)),
        ("first", look, Value::from_function(filters::first)),
        ("last", look, Value::from_function(filters::last)),
        ("default", look, Value::from_function(filters::default)),
        ("d", look, Value::from_function(filters::default)),
        ("attr", look, Value::from_function(filters::attr)),
        ("bool", look, Value::from_function(filters::bool)),
        ("int", look, Value::from_function(filters::int)),
        ("float", look, Value::from_function(filters::float)),
        ("abs", look, Value::from_function(filters::abs)),
        ("round", look, Value::from_function(filters::round)),
        ("items", walk, Value::from_function(filters::items)),
        ("list", walk, Value::from_function(filters::list)),
        ("reverse", walk, Value::from_function(filters::reverse)),
        ("dictsort", walk, Value::from_function(filters::dictsort)),
        ("sort", walk, Value::from_function(filters::sort)),
        ("unique", walk, Value::from_function(filters::unique)),
        ("groupby", walk, Value::from_function(filters::groupby)),
        ("min", walk, Value::from_function(filters::min)),
        ("max", walk, Value::from_function(filters::max)),
        ("sum", walk, Value::from_function(filters::sum)),
        ("map", walk, Value::from_function(filters::map)),
        ("select", walk, Value::from_function(filters::select)),
        ("reject", walk, Value::from_function(filters::reject)),
        ("selectattr", walk, Value::from_function(filters::selectattr)),
        ("rejectattr", walk, Value::from_function(filters::rejectattr)),
        ("chain", walk, Value::from_function(filters::chain)),
        ("batch", count, Value::from_function(filters::batch)),
        ("slice", count, Value::from_function(filters::slice)),
    ];
    for (name, pay, filter) in named {
        add_filter(environment, budget, name, pay, filter);
    }
    add_filter(environment, budget, "zip", walk, Value::from_function(filters::zip));
    let purse = Arc::clone(budget);
    environment.add_filter("string", move |value: &Value| python::text(value, &purse));
    let purse = Arc::clone(budget);
    environment.add_filter("join", move |value: &Value, separator: Option<Value>, options: Kwargs| {
        let separator = match separator {
            Some(separator) => Some(separator),
            None => options.get::<Option<Value>>("d")?,
        };
        let separator =
            separator.map_or_else(|| Ok(String::new()), |separator| python::text(&separator, &purse))?;
        let attribute = options.get::<Option<&str>>("attribute")?;
        options.assert_all_used()?;
        join(&purse, value, &separator, attribute)
    });
    let purse = Arc::clone(budget);
    environment.add_filter("tojson", move |value: &Value, indent: Option<Value>, options: Kwargs| {
        tojson(&purse, value, indent, &options)
    });
}

fn add_filter(
    environment: &mut Environment<'static>,
    budget: &Arc<Budget>,
    name: &'static str,
    pay: Payment,
    filter: Value,
) {
    let purse = Arc::clone(budget);
    environment.add_filter(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
        let args: Vec<Value> = args.0.into_iter().map(Value::from).collect();
        pay(&purse, &args)?;
        purse.made(filter.call(state, &args)?)
    });
}

/// Tests that compare or search; the others look at one value only.
fn add_tests(environment: &mut Environment<'static>, budget: &Arc<Budget>) {
    type Comparison = fn(&Value, &Value) -> bool;
    let comparisons: [(&[&'static str], Comparison); 6] = [
        (&["==", "eq", "equalto"], |left, right| left == right),
        (&["!=", "ne"], |left, right| left != right),
        (&["<", "lt", "lessthan"], |left, right| left < right),
        (&["<=", "le"], |left, right| left <= right),
        (&[">", "gt", "greaterthan"], |left, right| left > right),
        (&[">=", "ge"], |left, right| left >= right),
    ];
    for (names, comparison) in comparisons {
        for name in names {
            let purse = Arc::clone(budget);
            environment.add_test(*name, move |left: &Value, right: &Value| {
                operators::compare(&purse, left, right, comparison).map(|outcome| outcome.is_true())
            });
        }
    }
    let purse = Arc::clone(budget);
    environment.add_test("in", move |state: &State, item: &Value, container: &Value| {
        operators::contains(&purse, state, item, container).map(|outcome| outcome.is_true())
    });
}

fn add_functions(environment: &mut Environment<'static>, budget: &Arc<Budget>) {
    // It prints all variables.
    environment.remove_global("debug");
    let mut add = |name: &'static str, pay: Payment, function: Value| {
        let purse = Arc::clone(budget);
        environment.add_function(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            let args: Vec<Value> = args.0.into_iter().map(Value::from).collect();
            pay(&purse, &args)?;
            purse.made(function.call(state, &args)?)
        });
    };
    add("dict", walk, Value::from_function(functions::dict));
    let namespace: Payment = |budget, args| {
        budget.namespace()?;
        walk(budget, args)
    };
    add("namespace", namespace, Value::from_function(functions::namespace));
    let purse = Arc::clone(budget);
    environment.add_function("range", move |first: i64, second: Option<i64>, step: Option<i64>| {
        range(&purse, first, second, step.unwrap_or(1))
    });
    let purse = Arc::clone(budget);
    environment.add_function("raise_exception", move |message: &Value| -> Result<Value, Error> {
        Err(purse.refuse(&python::text(message, &purse)?))
    });
    environment.add_function("strftime_now", |format: &str| {
        if format.len() > 256 {
            return Err(Error::new(ErrorKind::InvalidOperation, "strftime_now: the format is too long"));
        }
        Ok(clock::now(format))
    });
}

/// The numbers of `range`, at most as many as Jinja2's sandbox allows.
fn range(budget: &Budget, first: i64, second: Option<i64>, step: i64) -> Result<Value, Error> {
    let (mut number, stop) = second.map_or((0, first), |stop| (first, stop));
    if step == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "the step of a range must not be zero"));
    }
    let distance =
        if step > 0 { i128::from(stop) - i128::from(number) } else { i128::from(number) - i128::from(stop) };
    if distance.max(0) / i128::from(step).abs() > RANGE_NUMBERS {
        return Err(budget.exceed("a range has too many numbers"));
    }
    let mut numbers = Vec::new();
    while if step > 0 { number < stop } else { number > stop } {
        budget.memory(32)?;
        numbers.push(number);
        number = number.saturating_add(step);
    }
    Ok(Value::from(numbers))
}
