//! The failures that routes of a kind have in common, written into the document: no route has to repeat them.
//! What a route says of a status itself stays.

use utoipa::openapi::{
    ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder,
    path::{Operation, Parameter, ParameterIn, PathItem},
    schema::{AdditionalProperties, Object, ObjectBuilder, Schema, Type},
};

const PROBLEM: &str = "application/problem+json";
const SCHEMA: &str = "Problem";

/// Adds them to every operation, and the shape of a failure to all that do not say theirs.
pub(super) fn complete(document: &mut OpenApi) {
    let schemas = &mut document.components.get_or_insert_default().schemas;
    schemas.insert(SCHEMA.to_owned(), problem().into());
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for (status, description) in common(operation) {
                let known = &mut operation.responses.responses;
                known.entry(status.to_owned()).or_insert_with(|| {
                    RefOr::T(ResponseBuilder::new().description(description).build())
                });
            }
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && status.as_str() >= "400"
                {
                    shape(response);
                }
            }
        }
    }
}

/// What `http::error` writes; further members belong to the code.
fn problem() -> Object {
    let text = ["type", "title", "detail", "code", "requestId"].into_iter();
    let shape = text.fold(ObjectBuilder::new(), |shape, name| {
        shape.property(name, ObjectBuilder::new().schema_type(Type::String)).required(name)
    });
    shape
        .property("status", ObjectBuilder::new().schema_type(Type::Integer))
        .required("status")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
        .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn common(operation: &Operation) -> Vec<(&'static str, &'static str)> {
    // of every route: an address that is too long or holds control characters
    let mut found = vec![("422", "`validation_failed`, naming the field")];
    if operation.security.is_some() {
        found.push(("401", "`unauthenticated`, with its `reason`"));
        found.push(("503", "`overloaded`, `draining`, `storage_unavailable`"));
    }
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let in_path = |one: &RefOr<Parameter>| matches!(one, RefOr::T(one) if one.parameter_in == ParameterIn::Path);
    if parameters.iter().any(in_path) {
        found.push(("404", "`not_found`: not there, or not for the caller to see"));
    }
    if operation.request_body.is_some() {
        found.push(("413", "`too_large`: a body of more than 64 KiB"));
        found.push(("415", "`unsupported_media_type`: JSON is"));
    }
    found
}

/// Failures look alike everywhere.
fn shape(response: &mut Response) {
    if response.content.is_empty() {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(SCHEMA))).build();
        response.content.insert(PROBLEM.to_owned(), content.into());
    }
}
